"""How the page looks: one theme in light and dark, one accent, its style sheet and its own script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

WEB = Path(__file__).parent / "web"
STYLES = ("style.css", "words.css")
SCRIPTS = ("frames.js", "theme.js", "live.js", "runs.js", "charts.js", "compare.js", "lists.js")


def look() -> dict[str, Any]:
    """What Gradio is given when the page is served."""
    return {
        "theme": theme(),
        "css": "\n".join((WEB / name).read_text(encoding="utf-8") for name in STYLES),
    }


def scripts() -> str:
    """The page's own scripts (`front`)."""
    return "\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS)


def theme() -> Any:
    grey = gr.themes.colors.slate
    accent = gr.themes.colors.orange
    return gr.themes.Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue=grey,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        # what can be filled in stands out from the page: white boxes with an edge on grey
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_width_dark="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_shadow="none",
        block_shadow_dark="none",
        block_padding="*spacing_md",
        layout_gap="*spacing_lg",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_shadow="none",
        input_shadow_focus="0 0 0 2px *primary_200",
        input_shadow_focus_dark="0 0 0 2px *primary_900",
        # white letters on the accent need its darker shades
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_secondary_shadow="none",
        button_secondary_shadow_hover="none",
        button_primary_shadow="none",
        checkbox_label_background_fill="white",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_950",
        checkbox_label_border_color_selected="*primary_600",
        checkbox_label_border_color_selected_dark="*primary_400",
        checkbox_label_text_color_selected="*neutral_900",
        checkbox_label_text_color_selected_dark="*neutral_50",
        checkbox_background_color_selected="*primary_700",
        checkbox_border_color_selected="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_border_width="0px",
        block_label_shadow="none",
        # labels are read before their values, they need not shout
        block_title_background_fill="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_text_weight="600",
        block_title_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="*body_text_color",
        block_label_text_color_dark="*body_text_color",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_400",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )
