import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from rich.console import Console

from ali_fast import checkpoint, record
from ali_fast.data.device import Wait
from ali_fast.data.samples import Samples
from ali_fast.errors import DivergedError
from ali_fast.figures import GAP, TILE
from ali_fast.live import LiveLine
from ali_fast.metrics import read_metrics
from ali_fast.record import Recorder, Speed
from ali_fast.run_directory import RunDirectory
from ali_fast.step import Step
from ali_fast.training_data import TrainingData


class Loader:
    manifest = SimpleNamespace(shape=(8, 8, 1))

    def __len__(self) -> int:
        return 100


@pytest.fixture
def recorder(make_small, tmp_path, hand_clock):
    """Of a run whose session began at 1000 s by the clock and before which it had been trained for 500 s."""
    run = RunDirectory(tmp_path)
    run.make_folders()
    images = torch.randint(256, (4, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Recorder(
        run,
        Step(make_small("maxout", torch.float32), learning_rate=1e-3, compile=False),
        TrainingData(Loader(), Samples(images), None, None, None),
        provenance={},
        batch_size=16,
        keep=1,
        seconds_before=500.0,
        live=LiveLine(Console(file=io.StringIO()), total_steps=1000, steps_per_epoch=100, start_step=0),
        wait=Wait(torch.device("cpu")),
    )
    yield made
    made.close()


def test_a_session_that_took_no_step_has_no_speed():
    """One that resumes at step 700 has not trained 700 steps since."""
    speed = Speed(100, Wait(torch.device("cpu")), 700)
    assert speed.measure(700) == {}
    assert speed.measure(701)["images_per_second"] > 0


def test_a_ticks_speed_is_of_its_own_steps_and_of_nothing_that_is_written_between(recorder, hand_clock, monkeypatch):
    def slow(*_, **__):
        hand_clock.now += 50.0

    monkeypatch.setattr(record.checkpoint, "save", slow)
    monkeypatch.setattr(record.report, "write", slow)
    for seconds, then in ((1.0, recorder.draw), (2.0, recorder.save), (4.0, lambda: None), (5.0, lambda: None)):
        recorder.step.steps += 10
        hand_clock.now += seconds
        recorder.speed.wait.seconds += seconds / 4
        recorder.tick()
        then()
    lines = read_metrics(recorder.run.metrics)
    assert [line["images_per_second"] for line in lines] == [160.0, 80.0, 40.0, 32.0]
    assert [line["step_ms"] for line in lines] == [100.0, 200.0, 400.0, 500.0]
    assert [line["data_wait_share"] for line in lines] == [0.25] * 4
    assert [line["seconds"] for line in lines] == [501.0, 553.0, 607.0, 612.0]  # of the sessions, drawing and all


def test_a_checkpoint_is_due_by_the_time_since_the_last_one(recorder, hand_clock):
    for step in (1, 2):
        recorder.step.steps = step
        hand_clock.now += record.SAVE_SECONDS - 1
        assert not recorder.save_is_due()
        hand_clock.now += 2
        assert recorder.save_is_due()
        recorder.save()
        assert not recorder.save_is_due()


def test_of_a_run_that_diverged_there_is_no_checkpoint(recorder):
    recorder.step.first_bad.fill_(4)
    with pytest.raises(DivergedError, match="not finite at step 5; there is no checkpoint yet"):
        recorder.save()
    assert not checkpoint.list_checkpoints(recorder.run.checkpoints)


def test_interpolations_are_drawn_as_eight_of_the_decoded_images_between_two(recorder):
    recorder.draw()
    with Image.open(recorder.run.figures / "interpolations.png") as picture:
        assert picture.size == (10 * (TILE + GAP) + GAP, 2 * (TILE + GAP) + GAP)  # four images, two pairs
