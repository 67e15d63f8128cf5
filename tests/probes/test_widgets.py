import subprocess
import sys


def test_the_package_imports_without_anywidget_and_what_a_trainer_brings():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import probes\n"
        "assert not {'probes.widgets', 'probes.watching', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
        "assert {'widgets', 'Watch', 'compare'} <= set(dir(probes))\n"
        "try:\n    import probes.widgets\n"
        "except probes.DependencyError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package anywidget, which is not installed: pip install 'layerscope[lab]'" in run.stdout
