"""doctor: facts about the machine, remedies, and the exit code."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.commands.machine import accelerators, checkup, compilers, processors, software, storage
from lightning_xt.commands.machine.finding import Finding, advise, fail
from lightning_xt.system.cores import read_core_limit

ROOT = Path(__file__).parents[1]


def test_this_machine_can_train(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LIGHTNING_XT_API_KEY", "sk-precious")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert torch.__version__ in said
    assert said.splitlines()[-1].startswith("Training works")
    assert all(len(line) <= 110 or " " not in line.strip() for line in said.splitlines())
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is True
    assert (
        "sk-precious" not in said
        and {"LIGHTNING_XT_API_KEY": "is set"}.items()
        <= {each["name"]: each["value"] for each in found["environment"]}.items()
    )
    assert {"name": "LIGHTNING_XT_DATA", "value": str(tmp_path / "data"), "remedy": None, "level": "ok"} in (
        found["environment"])  # fmt: skip
    for name in ("software", "devices", "compilers", "disks", "environment"):
        for each in found[name]:
            assert (each["remedy"] is None) or each["remedy"].strip()
            assert each["level"] == "ok" or each["remedy"]


def test_lightning_is_not_imported() -> None:
    script = """import sys
from lightning_xt.cli import main
main(["doctor"])
print(sorted({"lightning", "jsonargparse", "tensorboard", "matplotlib"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_error_is_an_exit_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checkup, "check_software", lambda: [fail("lightning", "not installed", "pip install lightning")]
    )
    monkeypatch.setattr(checkup, "_import_torch", lambda: (None, "no libgomp"))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "X lightning" in said and "-> pip install lightning" in said
    assert "cannot be imported (no libgomp)" in said
    assert said.splitlines()[-1] == "Training cannot work: 2 findings marked with X."


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.find_version("torch") is not None and software.find_version("no-such-library") is None
    assert {each.name for each in software.list_requirements()} >= {"torch", "lightning", "jsonargparse"}
    versions = {"torch": "2.3.0", "lightning": None, "sentencepiece": "0.1"}
    monkeypatch.setattr(software, "find_version", lambda name: versions.get(name, "99"))
    listed = ["torch>=2.9,<2.16", "lightning>=2.6", 'sentencepiece>=0.2; extra == "sentencepiece"',
              'hypothesis>=6; extra == "dev"', "numpy>=1"]  # fmt: skip
    monkeypatch.setattr(software, "list_requirements", lambda: [software.Requirement(each) for each in listed])
    found = {each.name: each for each in software.check_software()}
    assert found["torch"] == fail("torch", "2.3.0, but <2.16,>=2.9 is needed", 'pip install "torch<2.16,>=2.9"')
    assert found["lightning"].level == "error" and found["lightning"].value == "not installed"
    assert found["extra sentencepiece"].level == "advice"
    versions["sentencepiece"] = None  # type: ignore[assignment]
    (extra,) = (each for each in software.check_software() if each.name == "extra sentencepiece")
    assert extra.remedy == 'if you want to use it: pip install "lightning-xt[sentencepiece]"'
    assert not {"numpy", "extra dev"} & set(found)


def make_torch(**changes: object) -> SimpleNamespace:
    """Return a stand-in for a torch with one GPU."""
    facts = SimpleNamespace(name="H100", total_memory=80e9, major=9, minor=0)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda number: facts,
        get_arch_list=lambda: ["sm_80", "sm_90"],
    )  # fmt: skip
    mps = SimpleNamespace(is_available=lambda: False)
    version = SimpleNamespace(cuda="13.0", hip=None)
    stand_in = SimpleNamespace(
        __version__="2.13", cuda=cuda, backends=SimpleNamespace(mps=mps), version=version, facts=facts
    )
    stand_in.__dict__.update(changes)
    return stand_in


def test_accelerators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = make_torch()
    (found,) = accelerators.check_accelerators(fake)
    assert found == Finding("GPU 0", "H100, 80 GB, compute capability 9.0, --trainer.precision bf16-mixed")
    fake.facts.major, fake.facts.minor = 7, 5
    (found,) = accelerators.check_accelerators(fake)
    assert found.level == "error" and found.remedy is not None and "built for sm_75" in found.remedy
    fake.cuda.get_arch_list = lambda: ["sm_90", "compute_80"]
    assert next(accelerators.check_accelerators(fake)).level == "error"
    # The driver compiles for a newer GPU.
    fake.facts.major, fake.facts.minor = 12, 0
    assert next(accelerators.check_accelerators(fake)).level == "ok"
    fake.cuda.is_available = lambda: False
    monkeypatch.setattr(accelerators, "DRIVER", str(tmp_path))
    (found,) = accelerators.check_accelerators(fake)
    assert found.remedy is not None and "update the NVIDIA driver" in found.remedy
    fake.version.cuda = None
    (found,) = accelerators.check_accelerators(fake)
    assert found.remedy == "install a torch that is built for CUDA, as pytorch.org/get-started says"
    fake.backends.mps.is_available = lambda: True
    (found,) = accelerators.check_accelerators(fake)
    assert found.value.startswith("Apple's")


def write_machine(root: Path, flags: str, limit: str) -> None:
    for name, text in {
        "proc/cpuinfo": f"model name : Abacus\nflags : sse2 {flags}\n\nmodel name : other\n",
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/cpu.max": limit,
        "sys/fs/cgroup/box/memory.max": "2000000000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda number: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_machine(tmp_path, "amx_bf16", "250000 100000\n")
    found = {each.name: each for each in processors.check_processor(8, tmp_path)}
    assert found["CPU"].value == "Abacus, 8 cores, limited to 2.5 by its container"
    assert found["threads"].remedy == "set OMP_NUM_THREADS=2: more threads than cores slow each other down"
    assert found["bfloat16 on the CPU"].value == "in hardware (amx_bf16)"
    assert found["memory"].value == "8.2 GB, 4.1 GB free, limited to 2.0 GB by its container"
    write_machine(tmp_path, "avx2", "max 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = {each.name: each for each in processors.check_processor(1, tmp_path)}
    assert found["CPU"].value == "Abacus, 8 cores"
    assert found["threads"].remedy == "unset OMP_NUM_THREADS to use 8 cores"
    assert found["bfloat16 on the CPU"].value == "not in hardware; train in float32"


def test_older_control_groups(tmp_path: Path) -> None:
    for name, text in {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000",
                       "memory/memory.limit_in_bytes": str(2**62)}.items():  # fmt: skip
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    assert read_core_limit(tmp_path) == 1.5
    assert processors.read_memory_limit(tmp_path) is None
    assert read_core_limit(tmp_path / "elsewhere") is None


def test_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    compiler, triton = compilers.check_compilers(cuda=True)
    assert compiler.remedy is not None and "install g++" in compiler.remedy
    assert triton.remedy == "for --model.compile true on a GPU: pip install triton"
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    (compiler,) = compilers.check_compilers(cuda=False)
    assert compiler.value.endswith("but without Python.h")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    compiler, triton = compilers.check_compilers(cuda=True)
    assert (compiler.level, triton.level) == ("ok", "ok")


def test_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "none/data"))
    usage = SimpleNamespace(free=1e12, total=1e12)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    runs, data = storage.check_storage()
    assert runs == Finding("runs", f"{tmp_path}/runs, 1000.0 GB free")
    monkeypatch.setattr(storage, "find_type", lambda folder: "nfs4")
    runs, data = storage.check_storage()
    assert runs.level == "ok" and "network file system (nfs4)" in runs.value
    assert data.remedy is not None and "LIGHTNING_XT_DATA" in data.remedy
    usage.free, usage.total = 1e9, 64e6
    runs, data, shared = storage.check_storage()
    assert runs.remedy == "make room; or --trainer.default_root_dir FOLDER puts runs elsewhere"
    assert shared == advise(
        "shared memory", "64 MB", "keep --data.num_workers 0, or start the container with --shm-size=1g"
    )
    (tmp_path / "runs").touch()
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "runs"))
    runs, data, _ = storage.check_storage()
    assert (runs.level, data.level) == ("error", "advice")
    assert "cannot be written to" in runs.value


def test_file_systems(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\nx /home/my\\040disk xfs rw 0 0\n")
    assert storage.find_type(Path("/home/me"), mounts) == "nfs4"
    assert storage.find_type(Path("/homes"), mounts) == "ext4"
    assert storage.find_type(Path("/home/my disk/a"), mounts) == "xfs"
    assert storage.find_type(Path("/home/me"), tmp_path / "none") == ""
