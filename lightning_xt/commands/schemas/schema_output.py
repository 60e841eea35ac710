"""Output of the JSON Schema of a config."""

from pathlib import Path

from lightning_xt.commands.schemas.config_schema import build_schema
from lightning_xt.system.files import replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError


def write_schema(command: str, output: str | None) -> int:
    """Write the schema of a command's config to a file, or print it; return the exit code."""
    text = to_json(build_schema(command), indent=1) + "\n"
    if output is None:
        print(text, end="")
        return 0
    file = Path(output)
    if file.is_dir():
        raise UserError(f"--output {output} is a folder; give a file, such as {file / 'schema.json'}")
    try:
        with replace_file(file) as out:
            out.write(text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"--output {output} cannot be written ({error.strerror}); give another file") from error
    print(f"schema={file}")
    print(f"first line of a config: # yaml-language-server: $schema={file.resolve()}")
    return 0
