import os
import signal

import pytest

from ali_fast.errors import Interrupted
from ali_fast.signals import Signals

pytestmark = pytest.mark.usefixtures("hangs_up")


def test_before_it_is_armed_a_signal_stops_at_once():
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with pytest.raises(Interrupted) as stopped, Signals():
            os.kill(os.getpid(), signum)
        assert stopped.value.exit_code == code


def test_armed_it_is_noted_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        signals.arm()
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is before


def test_what_nohup_has_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)  # not armed: another would end it
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_disarmed_a_signal_stops_at_once_and_one_that_was_noted_is_not_lost():
    with Signals() as signals:
        signals.arm()
        signals.disarm()
        with pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.value.exit_code == 143
        signals.arm()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.disarm()


def test_a_second_sigint_ends_the_process():
    child = os.fork()
    if child == 0:
        with Signals() as signals:
            signals.arm()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
