"""The paper's tables and settings, row by row, as PAPER.md has them; each written out again here."""

import pytest

from ali_fast import presets

BIG = "5,1,32 BN | 4,2,64 BN | 4,1,128 BN | 4,2,256 BN | 4,1,512 BN | 1,1,512 BN"
UP = "T4,1,256 BN | T4,2,128 BN | T4,1,64 BN | T4,2,32 BN | T5,1,32 BN | 1,1,32 BN | 1,1,3 sigmoid untied"
APPENDIX = {  # slope; E; G; D(x); D(z); D(x,z), as PAPER.md has them. d: dropout of the input; b: a bias of each map
    "cifar10": (
        0.1,
        f"{BIG} | 1,1,128 linear b",
        UP,
        "5,1,32 maxout b d0.2 | 4,2,64 maxout b d0.5 | 4,1,128 maxout b d0.5 | 4,2,256 maxout b d0.5 "
        "| 4,1,512 maxout b d0.5",
        "1,1,512 maxout d0.2 | 1,1,512 maxout d0.5",
        "1,1,1024 maxout b d0.5 | 1,1,1024 maxout b d0.5 | 1,1,1 linear b d0.5",
    ),
    "svhn": (
        0.01,
        f"{BIG} | 1,1,512 linear b",
        UP,
        "5,1,32 b d0.2 | 4,2,64 BN d0.2 | 4,1,128 BN d0.2 | 4,2,256 BN d0.2 | 4,1,512 BN d0.2",
        "1,1,512 d0.2 | 1,1,512 d0.2",
        "1,1,1024 b d0.2 | 1,1,1024 b d0.2 | 1,1,1 linear b d0.2",
    ),
    "celeba": (
        0.02,
        "2,1,64 BN | 7,2,128 BN | 5,2,256 BN | 7,2,256 BN | 4,1,512 BN | 1,1,512 linear b",
        "T4,1,512 BN | T7,2,256 BN | T5,2,256 BN | T7,2,128 BN | T2,1,64 BN | 1,1,3 sigmoid untied",
        "2,1,64 b d0.2 | 7,2,128 BN d0.2 | 5,2,256 BN d0.2 | 7,2,256 BN d0.2 | 4,1,512 BN d0.2",
        "1,1,1024 d0.2 | 1,1,1024 d0.2",
        "1,1,2048 b d0.2 | 1,1,2048 b d0.2 | 1,1,1 linear b d0.2",
    ),
    "imagenet64": (
        0.01,
        "4,2,64 BN | 4,1,64 BN | 4,2,128 BN | 4,1,128 BN | 4,2,256 BN | 4,1,256 BN | 1,1,2048 BN | 1,1,2048 BN "
        "| 1,1,512 linear b",
        "1,1,2048 BN | 1,1,256 BN | T4,1,256 BN | T4,2,128 BN | T4,1,128 BN | T4,2,64 BN | T4,1,64 BN | T4,2,64 BN "
        "| 1,1,3 sigmoid untied",
        "4,2,64 b d0.2 | 4,1,64 BN d0.2 | 4,2,128 BN d0.2 | 4,1,128 BN d0.2 | 4,2,256 BN d0.2 | 4,1,256 BN d0.2",
        "1,1,2048 b d0.2 | 1,1,2048 b d0.2",
        "1,1,4096 b d0.2 | 1,1,4096 b d0.2 | 1,1,1 linear b d0.2",
    ),
}
CODE = "5,1,32 maxout b d0.2 | 4,2,64 maxout b d0.5 | 4,1,128 maxout b d0.5 before_maxout | 4,2,256 maxout b "
CODE += "| 4,1,512 maxout b d0.5"
APPENDIX["cifar10-code"] = (*APPENDIX["cifar10"][:3], CODE, *APPENDIX["cifar10"][4:])


def spelled(row):
    words = [f"{'T' * (row.operation == 'transposed')}{row.kernel},{row.stride},{row.maps}"]
    words += ["BN"] * row.norm + [row.activation] * (row.activation != "leaky_relu")
    words += {"none": [], "tied": ["b"], "untied": ["untied"]}[row.bias] + [f"d{row.dropout}"] * (row.dropout > 0)
    return " ".join(words + [row.dropout_site] * (row.dropout_site != "input"))


@pytest.mark.parametrize("name", APPENDIX)
def test_the_tables_are_the_appendix_row_by_row(name):
    (a,) = (preset.architecture for preset in presets.PRESETS if preset.name == name)
    slope, *tables = APPENDIX[name]
    assert (a.slope, a.init_std) == (slope, 0.01)
    found = (a.encoder, a.decoder, a.discriminator_x, a.discriminator_z, a.discriminator_xz)
    for table, expected in zip(found, tables, strict=True):
        assert " | ".join(map(spelled, table)) == expected


def test_presets_are_the_papers_row_by_row():
    """Batch, epochs; the splits for training, validation and test; all of the paper's have its Adam."""
    rows = {
        p.name: (p.batch_size, p.epochs, p.train_split, p.valid_split, p.test_split)
        for p in presets.PRESETS
        if p.from_paper
    }
    assert rows == {
        "cifar10": (100, 6475, "train", "valid", "test"),
        "svhn": (100, 100, "extra", "train", "test"),
        "celeba": (100, 123, "train", "valid", "test"),
        "celeba-conditional": (128, 123, "train", "valid", "test"),
        "imagenet64": (128, 125, "train", "valid", "valid"),
    }
    assert {(p.learning_rate, p.beta1, p.beta2) for p in presets.PRESETS if p.from_paper} == {(1e-4, 0.5, 0.999)}


def test_svhns_labels_come_from_train_less_its_last_10_000():
    svhn, cifar10 = presets.resolve("svhn"), presets.resolve("cifar10")
    assert (svhn.labelled_split, svhn.held_out) == ("train", 10_000)
    assert (cifar10.labelled_split, cifar10.held_out) == ("train", 0)
