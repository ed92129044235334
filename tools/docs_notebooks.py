"""The MkDocs hook that writes a page for every notebook while the site is built: its text, its code and a link."""

import json
from pathlib import Path
from typing import Any


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    docs = Path(config["docs_dir"])
    for notebook in sorted(docs.rglob("*.ipynb")):
        path = notebook.relative_to(docs).with_suffix(".md").as_posix()
        files.append(File.generated(config, path, content=page(notebook)))
    return files


def page(notebook: Path) -> str:
    """Return a notebook as Markdown, with a link to the file below its heading."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [written(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    heading, _, rest = texts[0].partition("\n")
    link = f"[Download this notebook]({notebook.name}), and run it in Jupyter."
    return "\n\n".join([heading, link, rest.strip(), *texts[1:]]) + "\n"


def written(kind: str, text: str) -> str:
    """Return one cell as Markdown."""
    return f"```python\n{text}\n```" if kind == "code" else text
