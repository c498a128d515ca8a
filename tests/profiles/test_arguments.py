import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ali_fast import presets
from ali_fast.errors import InputError
from profiles.arguments import PAPERS, Parser

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parser():
    return Parser("one", "What it does.\n\nAnd how.")


def test_a_parser_can_be_made_before_torch_is_imported():
    code = "import sys; from profiles.arguments import Parser; Parser('one', ''); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "many"])
def test_what_counts_something_is_at_least_one(parser, given, capsys):
    parser.add_step()
    assert parser.parse_args(["--dataset", "digits", "--batch-size", "1"]).batch_size == 1
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--dataset", "digits", "--batch-size", given])
    assert ended.value.code == 2
    assert "argument --batch-size: " in capsys.readouterr().err


def test_its_help(parser):
    parser.add_outputs(chart=None)
    said = parser.format_help()
    assert said.startswith("usage: python -m profiles.one ")
    assert "\nWhat it does.\n" in said and "And how" not in said
    assert "--json" in said and "--chart" not in said


def test_a_step_is_chosen_with_the_presets_batch_size_or_another(parser):
    parser.add_step()
    digits, cpu = presets.resolve("digits"), torch.device("cpu")
    flags = ["--dataset", "digits", "--device", "cpu"]
    assert parser.chosen(parser.parse_args(flags)) == (digits, digits.batch_size, cpu)
    assert parser.chosen(parser.parse_args([*flags, "--batch-size", "4"])) == (digits, 4, cpu)


def test_the_papers_networks_or_those_asked_for(parser):
    parser.add_networks()
    assert tuple(preset.name for preset in parser.networks(parser.parse_args([]))) == PAPERS
    assert parser.networks(parser.parse_args(["--preset", "digits"])) == [presets.resolve("digits")]


def wrong_dataset(parser):
    parser.add_step()
    parser.chosen(parser.parse_args(["--dataset", "digit"]))


def wrong_network(parser):
    parser.add_networks()
    parser.networks(parser.parse_args(["--preset", "digit"]))


def wrong_in_use(parser):
    with parser.checked():
        raise InputError("digit: of digits")


@pytest.mark.parametrize("wrong", [wrong_dataset, wrong_network, wrong_in_use])
def test_a_wrong_argument_ends_it_with_2_and_what_is_accepted(parser, wrong, capsys):
    with pytest.raises(SystemExit) as end:
        wrong(parser)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "digit" in said and "digits" in said
