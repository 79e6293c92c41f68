"""`glnet-rt info`: what an artifact holds."""

from __future__ import annotations

from glnet_rt.cli.common import ArtifactOption, JsonOption, print_json


def info(artifact: ArtifactOption = None, json: JsonOption = False) -> None:
    """Show an artifact's manifest, network and body, after checking every byte of it."""
    import typer

    from glnet_rt._version import __version__
    from glnet_rt.artifact import BODY, Artifact
    from glnet_rt.body_model import BodyModel

    opened = Artifact.open(artifact)
    body = BodyModel.from_bytes(opened.read(BODY), BODY)
    manifest = opened.manifest
    values = {
        "artifact": str(opened.path),
        "glnet_rt_version": __version__,
        "name": manifest.name,
        "licence": manifest.licence,
        "training_data": manifest.training_data,
        "precisions": list(manifest.precisions),
        "spec": opened.spec.to_dict(),
        "body": {
            "body_id": body.body_id,
            "sha256": body.sha256,
            "vertices": len(body.v_template),
            "faces": len(body.faces),
            "betas": body.num_betas,
        },
        "files": {name: entry.size for name, entry in sorted(manifest.files.items())},
    }
    if json:
        print_json(values)
        return
    for key, value in values.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, part in value.items():
                typer.echo(f"  {name:<16} {part}")
        else:
            typer.echo(f"{key:<18} {value}")
