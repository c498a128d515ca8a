"""Small networks of each kind, in float64, with weights large enough that every gradient counts.

The helpers beside this file (in_float64, forked, digits_run) are importable by name.
"""

import dataclasses
import signal
import sys
from pathlib import Path

import pytest
import torch

import data_prep
from ali_fast import arch
from ali_fast.kernels import resolve
from ali_fast.model import ALI

sys.path.insert(0, str(Path(__file__).parent))

SMALL = {
    # maxout D without batch norm, one dropout of each order
    "maxout": arch.Architecture(
        image_channels=1,
        image_size=8,
        z_dim=4,
        slope=0.1,
        encoder=(arch.conv_bn(3, 1, 12), arch.conv_bn(6, 1, 10), arch.codes(4)),
        decoder=(arch.transposed_bn(3, 1, 9), arch.transposed_bn(4, 2, 6), arch.image(1)),
        discriminator_x=(
            arch.maxout(3, 1, 8, 0.2),
            arch.maxout(2, 2, 12, 0.5, dropout_site="before_maxout"),
            arch.maxout(3, 1, 16, 0.0),
        ),
        discriminator_z=(arch.maxout(1, 1, 16, 0.2, bias="none"), arch.maxout(1, 1, 12, 0.5, bias="none")),
        discriminator_xz=(arch.maxout(1, 1, 24, 0.5), arch.logit(0.5)),
    ),
    # batch norm in D(x)
    "norm": arch.Architecture(
        image_channels=3,
        image_size=8,
        z_dim=5,
        slope=0.02,
        encoder=(arch.conv_bn(3, 1, 12), arch.conv_bn(6, 1, 10), arch.codes(5)),
        decoder=(arch.conv_bn(1, 1, 11), arch.transposed_bn(3, 1, 9), arch.transposed_bn(4, 2, 6), arch.image(3)),
        discriminator_x=(
            arch.conv(3, 1, 8, dropout=0.2, bias="tied"),
            arch.conv_bn(2, 2, 12, dropout=0.2),
            arch.conv_bn(3, 1, 16, dropout=0.2),
        ),
        discriminator_z=(arch.conv(1, 1, 16, dropout=0.2), arch.conv(1, 1, 12, dropout=0.2)),
        discriminator_xz=(arch.conv(1, 1, 24, dropout=0.2, bias="tied"), arch.logit(0.2)),
    ),
}


def small_model(
    name: str, dtype: torch.dtype = torch.float64, kernels: str = "eager", objective="ali", d_x=None, **more
) -> ALI:
    """d_x: D(x) of other rows."""
    architecture = SMALL[name] if d_x is None else dataclasses.replace(SMALL[name], discriminator_x=d_x)
    model = ALI(architecture, resolve(kernels, "cpu"), objective, **more)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * 0.3 + (parameter.dim() == 1 and parameter.mean() > 0.5))
    return model.to(dtype).train()


CELEBA = """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses
Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes
No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling
Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"""


@pytest.fixture
def celeba_names() -> tuple[str, ...]:
    """The second line of list_attr_celeba.txt."""
    return tuple(CELEBA.split())


@pytest.fixture(params=SMALL)
def kind(request) -> str:
    return request.param


@pytest.fixture
def make_small():
    return small_model


@pytest.fixture
def restored():
    """For runs in this process: its signal handlers and generator are put back."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data directory with the digits."""
    directory = tmp_path_factory.mktemp("data")
    data_prep.prepare("digits", data_dir=directory)
    return directory
