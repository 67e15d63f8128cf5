import subprocess
import sys


def test_the_package_imports_without_anywidget():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import probes\n"
        "assert 'probes.widgets' not in sys.modules\n"
        "try:\n    import probes.widgets\n"
        "except probes.DependencyError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package anywidget, which is not installed: pip install 'layerscope[lab]'" in run.stdout
