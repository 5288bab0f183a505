"""The settings editor's page at its three sizes: list above detail, list beside detail, and too small for either."""

STYLES = """
EditorScreen { background: $background; layout: vertical; }
EditorScreen Static { height: 1; padding: 0 1; color: $foreground; background: $background; }
EditorScreen #search, EditorScreen #trial, EditorScreen #small { display: none; }
EditorScreen #search.open, EditorScreen #trial.open { display: block; }
EditorScreen.-small > * { display: none; }
EditorScreen.-small > #small { display: block; height: 1fr; }
EditorScreen Input { height: 1; border: none; padding: 0 1; color: $value; background: $panel; }
EditorScreen #page { height: 1fr; layout: vertical; }
EditorScreen OptionList, EditorScreen OptionList:focus {
    width: 100%; height: 1fr; padding: 0; background: $background;
    border: none; border-top: solid $edge; border-bottom: solid $edge;
    background-tint: $background 0%; scrollbar-size-vertical: 1;
}
EditorScreen OptionList:focus { border-top: solid $edge-focus; border-bottom: solid $edge-focus; }
EditorScreen OptionList > .option-list--option-highlighted,
EditorScreen OptionList:focus > .option-list--option-highlighted { color: $value; background: $panel; text-style: none; }
EditorScreen OptionList:ansi > .option-list--option-highlighted,
EditorScreen OptionList:ansi:focus > .option-list--option-highlighted { text-style: reverse; }
EditorScreen #detail { height: auto; }
EditorScreen #about { height: 6; }
EditorScreen #entry { height: 1; }
EditorScreen #label { width: 8; color: $muted; }
EditorScreen #value { width: 1fr; margin: 0 1 0 0; }
EditorScreen #search { margin: 0 1; }
EditorScreen #value:disabled { color: $muted; }
EditorScreen #verdict { height: 2; }
EditorScreen.-wide #page { layout: horizontal; }
EditorScreen.-wide OptionList, EditorScreen.-wide OptionList:focus { width: 1fr; height: 100%; }
EditorScreen.-wide #detail { width: 44%; height: 100%; padding: 1 0 0 1; }
EditorScreen.-wide #about { height: auto; margin-bottom: 1; }
EditorScreen.-wide #verdict { height: 8; margin-top: 1; }
"""
