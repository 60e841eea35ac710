"""Output of the JSON Schema of a config."""

from pathlib import Path

from lightning_xt.commands.options.output_files import check_output, write_output
from lightning_xt.commands.schemas.config_schema import build_schema
from lightning_xt.system.json_text import to_json

OUTPUT = "schema: --output"


def write_schema(command: str, output: str | None) -> int:
    """Write the schema of a command's config to a file, or print it; return the exit code."""
    file = None if output is None else Path(output)
    if file is not None:
        check_output(OUTPUT, file)
    text = to_json(build_schema(command), indent=1) + "\n"
    if file is None:
        print(text, end="")
        return 0
    with write_output(OUTPUT, file) as out:
        out.write(text.encode("utf-8"))
    print(f"schema={file}")
    print(f"first line of a config: # yaml-language-server: $schema={file.resolve()}")
    return 0
