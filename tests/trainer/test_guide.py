"""docs/guides/trainer.md: what it tells a newcomer to type is what works."""

import json
import re
from pathlib import Path

from darkroom_api.report import ExitCode
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer import predict
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.launch import read_config
from darkroom_trainer.tasks import make_task
from darkroom_trainer.train import Host, train
from tests.trainer.images import write_colors
from tests.trainer.processes import ROOT

GUIDE = (ROOT / "docs/guides/trainer.md").read_text(encoding="utf-8")


def test_the_file_of_the_guide_trains_and_its_model_predicts(tmp_path: Path, monkeypatch, capsys):
    """As it stands there, but for the images and the length."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")
    (example,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    content = json.loads(example)
    write_colors(tmp_path / content["dataDir"], 20)
    content["vision"]["schedule"]["epochs"] = 1
    (tmp_path / "config.json").write_text(json.dumps(content))

    config = read_config(Path("config.json"), {})
    message = train(config, make_task(config), Host(clock=Clock(now())))
    assert message.exit_code == ExitCode.DONE
    told = re.findall(
        r"^\| `([\w./]+?)/?` \| ", GUIDE.partition("## What comes out")[2].partition("##")[0], re.MULTILINE
    )
    assert sorted(told) == sorted(path.name for path in Path(content["runDir"]).iterdir())

    capsys.readouterr()
    assert predict.main([f"{content['runDir']}/model", "digits/red/000.png", "--top", "2"]) == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_guide_names_every_field_and_every_exit_code():
    for field in TrainerConfig.model_fields.values():
        assert f"| `{field.alias}` |" in GUIDE
    for code in ExitCode:
        assert f"\n| {int(code)} | " in GUIDE
