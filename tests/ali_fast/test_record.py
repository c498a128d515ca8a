import torch

from ali_fast.data.device import Wait
from ali_fast.record import Speed


def test_a_session_that_took_no_step_has_no_speed():
    """One that resumes at step 700 has not trained 700 steps since."""
    speed = Speed(100, Wait(torch.device("cpu")), 700)
    assert speed.measure(700) == {}
    assert speed.measure(701)["images_per_second"] > 0
