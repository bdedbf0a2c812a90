"""`python -m model teach`: write a network's features of training crops, as the teacher of a run."""

from pathlib import Path
from typing import Annotated

import typer

from model.architecture import EMBEDDING_DIM
from model.checks import require_disk, require_memory, require_output_file, require_pictures
from model.commands.common import ThreadsOption, console
from model.datasets import open_data_sets
from model.errors import ModelError
from model.files import atomic_write

_CHUNK_SIZE = 512


def teach(
    network: Annotated[Path, typer.Option(help="A checkpoint, or a network that `convert` wrote from an OpenVINO IR")],
    data: Annotated[list[str], typer.Option(help="KIND:FOLDER with the training crops; may be repeated")],
    out: Annotated[Path, typer.Option(help="The .npz file to write, for `train --teacher`")],
    threads: ThreadsOption = None,
) -> None:
    """Write a network's features of training crops and of their mirror images, as the teacher of a run."""
    import numpy as np

    from model.loading import load_any_network
    from model.pictures import read_inputs
    from model.training.teacher import check_file_names, mirrored_embeddings

    if out.suffix != ".npz":
        raise ModelError(f"--out is {out}; it must end in .npz")
    require_output_file("--out", out)
    samples = open_data_sets(data).train()
    paths = [sample.path for sample in samples]
    names = [path.name for path in paths]
    check_file_names(names, " and ".join(data))
    require_pictures(samples)
    features_size = 2 * 2 * EMBEDDING_DIM * len(paths)  # plain and mirrored, in float16
    require_disk(out.parent, features_size, "the file of features", "choose another --out")
    require_memory(2 * features_size, "teaching on these crops", "teach on fewer crops a file; a run takes several")
    teacher = load_any_network(network)
    features = []
    for start in range(0, len(paths), _CHUNK_SIZE):
        inputs = read_inputs(paths[start : start + _CHUNK_SIZE], teacher.metadata.input)
        features.append(mirrored_embeddings(teacher.embed, inputs).astype(np.float16))
    plain, mirrored = np.concatenate(features, axis=1)
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        np.savez(file, names=np.array(names), features=plain, features_mirrored=mirrored)
    console.print(f"{out}: {teacher.metadata.model_id} on {len(paths):,} crops", soft_wrap=True)
