"""Files of TensorBoard's projector: vectors with their labels."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_xt.system.files import replace_file, set_aside
from lightning_xt.system.json_text import to_json

FOLDER = "projector"


def write_projector_files(folder: Path, name: str, vectors: Float[Tensor, "rows D"], labels: Sequence[str]) -> None:
    """Write labelled vectors into the folder of a run, in place of earlier ones of this name."""
    home = folder / FOLDER
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        # Files would be written elsewhere, or not at all.
        rank_zero_info(set_aside(home, "it is a link" if home.is_symlink() else "it is not a folder"))
    home.mkdir(exist_ok=True)
    with replace_file(home / f"{name}.bytes") as file:
        file.write(vectors.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
    with replace_file(home / f"{name}.tsv") as file:
        file.write("".join(f"{label}\n" for label in labels).encode("utf-8"))
    described = (
        f"embeddings {{\n  tensor_name: {to_json(name)}\n  tensor_shape: {vectors.shape[0]}\n"
        f"  tensor_shape: {vectors.shape[1]}\n  tensor_path: {to_json(f'{FOLDER}/{name}.bytes')}\n"
        f"  metadata_path: {to_json(f'{FOLDER}/{name}.tsv')}\n}}\n"
    )
    with replace_file(home / f"{name}.pbtxt") as file:
        file.write(described.encode("utf-8"))
    # The one that TensorBoard reads names all.
    with replace_file(folder / "projector_config.pbtxt") as file:
        for part in sorted(home.glob("*.pbtxt")):
            file.write(part.read_bytes())
