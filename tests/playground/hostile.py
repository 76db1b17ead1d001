"""A notebook by somebody who means harm: everything in it that a page could run, fetch or be misled by."""

from __future__ import annotations

import json
from pathlib import Path

ELSEWHERE = "http://elsewhere.invalid"
MARKDOWN = f"""# Hostile <img src=x onerror=alert(1)>

**Aim.** A <script>alert(2)</script> [link](javascript:alert(3)) and `code $5` and the loss.

![remote]({ELSEWHERE}/a.png) <img src="{ELSEWHERE}/b.png" onload="alert(4)">
<a href="javascript:alert(5)">one</a> <a href=" java&#10;script:alert(6)">two</a> <a href="data:text/html,x">three</a>
<a href="https://example.org/page">web</a> [other](01_other.ipynb)

<style>body {{ background: url({ELSEWHERE}/c.png) }}</style>
<div id="header" style="position:fixed;background:url({ELSEWHERE}/d.png);width:expression(alert(7))">covers</div>
<p style="width: u\\72l({ELSEWHERE}/e.png)">escaped</p>
<iframe src="{ELSEWHERE}/f"></iframe><object data="{ELSEWHERE}/g"></object><embed src="{ELSEWHERE}/h">
<form action="{ELSEWHERE}/i"><input autofocus onfocus=alert(8)><button>go</button></form>
<video src="{ELSEWHERE}/j"></video><link rel=stylesheet href="{ELSEWHERE}/k"><base href="{ELSEWHERE}/l">
<meta http-equiv=refresh content="0;url={ELSEWHERE}/m">

$\\href{{javascript:alert(9)}}{{x}}$ $\\includegraphics{{{ELSEWHERE}/n.png}}$ $x_{{<t}}$

<svg><style><img src=x onerror=alert(10)></style></svg><math><mtext><table><mglyph><style><img src=x onerror=alert(11)>

%%%LATEX_BLOCK_0%%%
"""
OUTPUT = f"""<svg viewBox="0 0 10 10" role="img" aria-label="kept" onload="alert(12)">
<script>alert(13)</script><image href="{ELSEWHERE}/o.png"/><use href="{ELSEWHERE}/p.svg#a"/>
<rect width="5" height="5" fill="url({ELSEWHERE}/q.svg#b)"/><a href="javascript:alert(14)"><text>drawn</text></a>
<foreignObject><img src=x onerror=alert(15)></foreignObject>
<animate attributeName="href" values="javascript:alert(16)"/></svg>
<table background="{ELSEWHERE}/r.png"><tr><td style="background:url('{ELSEWHERE}/s.png')">cell $6</td></tr></table>
<img src="data:image/svg+xml;base64,PHN2Zy8+"><img srcset="{ELSEWHERE}/t.png" src="data:image/png;base64,iVBORw0KGgo=">
<!--[if gte IE 4]><script>alert(17)</script><![endif]--><noscript><p title="</noscript><img src=x onerror=alert(18)>">
<xmp><img src=x onerror=alert(19)></xmp><template><img src=x onerror=alert(20)></template><plaintext>"""


def write(path: Path) -> Path:
    """The notebook, in the file of that name."""
    page = {"output_type": "display_data", "metadata": {}, "data": {"text/html": OUTPUT, "text/plain": "x"}}
    outputs = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"image/svg+xml": '<svg viewBox="0 0 1 1" onload="alert(21)"><circle r="1"/></svg>'},
        },
        {"output_type": "display_data", "metadata": {}, "data": {"application/javascript": "alert(22)"}},
        {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": f"![x]({ELSEWHERE}/u.png)"}},
        {"output_type": "stream", "name": "stdout", "text": "<img src=x onerror=alert(23)>\n\neverything took 3 s\n"},
    ]
    code = {"cell_type": "code", "metadata": {}, "execution_count": 1}
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": MARKDOWN},
        {**code, "id": "c", "source": "page", "outputs": [page]},
        {
            **code,
            "id": "b",
            "source": 'print("<img src=x onerror=alert(24)>", "$1", "$2")\n\n# ![x](http://elsewhere.invalid/v.png)',
            "outputs": outputs,
        },
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path
