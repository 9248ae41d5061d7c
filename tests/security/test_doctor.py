"""`flywheel doctor` refuses an Airflow that makes everybody an administrator, and loose secrets."""

from pathlib import Path

import pytest

from flywheel_core.deployment import Deployment
from flywheel_core.doctor import ALL_ADMINS, ALL_ADMINS_VARIABLE, SECRET_FILES, Finding, examine


@pytest.fixture(autouse=True)
def no_airflow_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (ALL_ADMINS_VARIABLE, "AIRFLOW_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "elsewhere"))


def finding(home: Path, check: str) -> Finding:
    deployment = Deployment(home, str(home / "store"), home / "policy.yaml")
    (found,) = [one for one in examine(deployment) if one.check == check]
    return found


def write_settings(folder: Path, value: str, name: str = "airflow.cfg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"[core]\nexecutor = LocalExecutor\n{ALL_ADMINS} = {value}\n")
    return folder / name


def test_users_are_told_apart(tmp_path: Path) -> None:
    assert finding(tmp_path, "auth manager").ok
    write_settings(tmp_path / "airflow", "False")
    assert finding(tmp_path, "auth manager").ok


@pytest.mark.parametrize("value", ["True", "true", "1", "yes", "t", "True  # for a test"])
@pytest.mark.parametrize("where", ["home", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "variable"])
def test_all_admins_is_refused_wherever_it_is_set(
    where: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = str(ALL_ADMINS_VARIABLE)
    if where == "variable":
        monkeypatch.setenv(ALL_ADMINS_VARIABLE, value)
    elif where == "AIRFLOW_CONFIG":
        named = str(write_settings(tmp_path / "etc", value, "own.cfg"))
        monkeypatch.setenv("AIRFLOW_CONFIG", named)
    else:
        folder = tmp_path / ("airflow" if where == "home" else "elsewhere")
        named = str(write_settings(folder, value))
    found = finding(tmp_path, "auth manager")
    assert not found.ok
    assert named in found.said
    assert "turn it off" in found.said


def test_settings_that_cannot_be_read_are_not_taken_for_safe(tmp_path: Path) -> None:
    write_settings(tmp_path / "airflow", "False").write_text("all admins, please")
    found = finding(tmp_path, "auth manager")
    assert not found.ok
    assert "cannot be read" in found.said


@pytest.mark.parametrize("name", [*SECRET_FILES, "passwords.json", "service_credentials.json"])
def test_a_secret_that_others_can_read_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    path.chmod(0o600)
    assert finding(tmp_path, "password files").ok
    path.chmod(0o640)
    found = finding(tmp_path, "password files")
    assert not found.ok
    assert str(path) in found.said
