"""Sources of languages whose compilers are not here, parsed with their grammars."""

from __future__ import annotations

from pathlib import Path

import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift

_LANGUAGES = {
    ".kt": tree_sitter_kotlin.language,
    ".kts": tree_sitter_kotlin.language,
    ".swift": tree_sitter_swift.language,
}


def syntax_errors(path: Path, text: bytes | None = None) -> list[str]:
    """Where a source is not of its language, as `file:line: text`. `text`: other bytes than the file's."""
    source = path.read_bytes() if text is None else text
    parser = tree_sitter.Parser(tree_sitter.Language(_LANGUAGES[path.suffix]()))
    lines = source.decode().splitlines()
    found, open_nodes = [], [parser.parse(source).root_node]
    while open_nodes:
        node = open_nodes.pop()
        if node.is_error or node.is_missing:
            row = node.start_point[0]
            found.append(f"{path.name}:{row + 1}: {lines[row] if row < len(lines) else 'end of file'}")
        elif node.has_error:
            open_nodes.extend(node.children)
    return sorted(found)
