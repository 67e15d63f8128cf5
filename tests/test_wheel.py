"""What is installed works without the repository: the command line, the bundled data and the explorer's page."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy, so that the repository stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith(("tests/", "notebooks/")) and (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    ]
    subprocess.run([*build, folder / "source"], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and what it needs, and not the repository."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--prefix", folder]
    subprocess.run([*pip, "--ignore-installed", wheel], check=True)
    # The dependencies of this environment; its links to the repository are not followed from a further path.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in an empty folder, and return what it printed."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_carries_no_script_that_needs_the_repository(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"probes", "compress"}
    assert [n for n in names if n.startswith("probes/data/") and n.endswith(".py")] == ["probes/data/__init__.py"]
    assert {"probes/data/corpus.tsv", "probes/py.typed"} <= set(names)
    assert {f"probes/data/{folder}/model.safetensors" for folder in ("model", "decoder")} <= set(names)
    assert {f"probes/data/world/{name}.tsv" for name in ("entities", "facts", "sentences")} <= set(names)


@pytest.fixture(scope="module")
def made(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the installed command line and package have made a report and an explorer's page."""
    folder = tmp_path_factory.mktemp("made")
    models = ["base=bundled", "again=bundled"]
    how = ["--corpus", "bundled", "--split", "dev", "--languages", "en,zh", "--pivot", "en", "--draws", "20"]
    printed = run(folder, python.parent / "layerscope", "compare", *models, *how, "--out", "run")
    assert "retrieval" in printed
    code = (
        "import probes\n"
        "print(probes.__file__)\n"
        "models = {n: probes.open_representations(f'run/representations/{n}.zarr') for n in ('base', 'again')}\n"
        "probes.compare(models, probes=['retrieval'], pivot='en', draws=20).explore().save('view.html')\n"
    )
    assert run(folder, python, "-c", code).startswith(str(python.parents[1]))
    return folder


def test_the_command_writes_its_report(made: Path) -> None:
    assert "layerscope report" in (made / "run" / "report.html").read_text(encoding="utf-8")[:200]
    assert (made / "run" / "comparison.csv").stat().st_size > 1000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_opens_in_a_browser(made: Path) -> None:
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    shown = run(
        made, "chromium", *quiet, f"--user-data-dir={made / 'profile'}", "--dump-dom", (made / "view.html").as_uri()
    )
    assert "<canvas" in shown or "<svg" in shown
    assert 'type="range"' in shown
