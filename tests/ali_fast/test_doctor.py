import json

import torch

from ali_fast import doctor, environment


def test_facts_are_plain_and_true():
    facts = environment.collect()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["torch_threads"] == torch.get_num_threads()
    assert facts["cores"] >= 1
    assert (facts["gpus"] == []) == (not torch.cuda.is_available())


def test_decisions_say_why(monkeypatch):
    report = doctor.examine()
    assert json.loads(json.dumps(report)) == report
    text = doctor.to_text(report)
    for name, made in report["decisions"].items():
        assert made["why"]
        assert f"{name}" in text
        assert f"{made['value']}  ({made['why']})" in text


def test_no_compiler_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    report = doctor.examine()
    assert report["environment"]["cxx_compiler"] is None
    assert report["decisions"]["torch.compile"]["value"] == "no"
    assert "C++ compiler" in report["decisions"]["torch.compile"]["why"]
