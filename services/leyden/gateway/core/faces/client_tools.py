"""Anthropic's tools that its clients run: bash, the text editor, memory. A request names only their version.

Anthropic's models know these tools. Other models get them as functions with the input that the documentation of each
tool describes, which is what clients expect in a `tool_use`.
"""

from leyden.gateway.core.request import JsonDict

TEXT: JsonDict = {"type": "string"}
BASH: JsonDict = {
    "description": "Runs a command in a bash session that stays open between calls.",
    "input_schema": {
        "type": "object",
        "properties": {
            "command": TEXT | {"description": "The command to run. Required unless `restart` is true."},
            "restart": {"type": "boolean", "description": "Start the session again."},
        },
    },
}
FIELDS: JsonDict = {
    "path": TEXT | {"description": "Path of the file or directory."},
    "file_text": TEXT | {"description": "For `create`: the text of the new file."},
    "old_str": TEXT | {"description": "For `str_replace`: the text to replace; it must occur exactly once."},
    "new_str": TEXT | {"description": "For `str_replace`: the new text."},
    "insert_line": {"type": "integer", "description": "For `insert`: the line after which to insert; 0: the start."},
    "insert_text": TEXT | {"description": "For `insert`: the text to insert."},
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "For `view`: first and last line, from 1; -1: to the end.",
    },
}
MOVED: JsonDict = {
    "old_path": TEXT | {"description": "For `rename`: the present path."},
    "new_path": TEXT | {"description": "For `rename`: the new path."},
}
EDITS = ("view", "create", "str_replace", "insert")


def _files(description: str, commands: tuple[str, ...], fields: JsonDict, required: list[str]) -> JsonDict:
    properties = {"command": TEXT | {"enum": list(commands), "description": "What to do."}} | fields
    schema = {"type": "object", "properties": properties, "required": required}
    return {"description": description, "input_schema": schema}


_EDITOR = "Views, creates and edits text files."
_OLDER_EDITOR = _files(
    _EDITOR,
    (*EDITS, "undo_edit"),
    {name: about for name, about in FIELDS.items() if name != "insert_text"}
    | {"new_str": TEXT | {"description": "For `str_replace` and `insert`: the new text."}},
    ["command", "path"],
)
_MEMORY = _files(
    "Views, creates, edits, deletes and renames files under /memories, which are kept between conversations.",
    (*EDITS, "delete", "rename"),
    FIELDS | MOVED,
    ["command"],
)
CLIENT_TOOLS: dict[str, tuple[str, JsonDict]] = {
    "bash_20241022": ("bash", BASH),
    "bash_20250124": ("bash", BASH),
    "text_editor_20241022": ("str_replace_editor", _OLDER_EDITOR),
    "text_editor_20250124": ("str_replace_editor", _OLDER_EDITOR),
    "text_editor_20250429": ("str_replace_based_edit_tool", _files(_EDITOR, EDITS, FIELDS, ["command", "path"])),
    "text_editor_20250728": ("str_replace_based_edit_tool", _files(_EDITOR, EDITS, FIELDS, ["command", "path"])),
    "memory_20250818": ("memory", _MEMORY),
}
"""Type → name, and description with schema. Computer use is not here: its results are images."""


def client_tool(kind: object, name: str) -> JsonDict | None:
    """Description and `input_schema` of a client tool; None for another type, or another name than its type has."""
    expected, described = CLIENT_TOOLS.get(kind, ("", {})) if isinstance(kind, str) else ("", {})
    return described if described and name == expected else None
