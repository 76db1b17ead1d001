// The values of a chart under the pointer, or under the arrow keys. A chart that carries `data-values` is asked; those in
// one `.charts` show the same place.
(() => {
    const SVG = "http://www.w3.org/2000/svg";

    const nearest = (points, x) => points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));

    const read = (svg) => JSON.parse(svg.dataset.values);

    const clear = (svg) => {
        svg.querySelector(".pointer")?.remove();
        svg.parentElement.querySelector(".chart-values")?.remove();
    };

    const show = (svg, x) => {
        clear(svg);
        const { axis, lines } = read(svg);
        const place = axis.left + ((x - axis.first) / (axis.last - axis.first)) * (axis.right - axis.left);
        const line = document.createElementNS(SVG, "line");
        const height = svg.viewBox.baseVal.height;
        for (const [name, value] of Object.entries({ x1: place, x2: place, y1: 28, y2: height - 54, class: "pointer" })) {
            line.setAttribute(name, value);
        }
        svg.append(line);
        const box = document.createElement("div");
        box.className = "chart-values";
        box.setAttribute("role", "status");
        const said = Object.entries(lines).map(([name, points]) => [name, nearest(points, x)]);
        box.textContent = [`${axis.title} ${Math.round(x)}`, ...said.map(([name, [, y]]) => `${name} ${y}`)].join(" · ");
        svg.parentElement.append(box);
        svg.dataset.at = x;
    };

    const together = (svg) => [...(svg.closest(".charts") ?? svg.parentElement).querySelectorAll("svg[data-values]")];

    const at = (svg, event) => {
        const { axis } = read(svg);
        const box = svg.getBoundingClientRect();
        const place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        const share = Math.min(1, Math.max(0, (place - axis.left) / (axis.right - axis.left)));
        return axis.first + share * (axis.last - axis.first);
    };

    document.addEventListener("pointermove", (event) => {
        const svg = event.target.closest?.("svg[data-values]");
        if (svg) {
            const longest = Object.values(read(svg).lines).reduce((a, b) => (b.length > a.length ? b : a));
            const x = nearest(longest, at(svg, event))[0];
            together(svg).forEach((one) => show(one, x));
        } else {
            document.querySelectorAll(".chart-values").forEach((box) => clear(box.parentElement.querySelector("svg")));
        }
    });
    document.addEventListener("keydown", (event) => {
        const svg = event.target.closest?.("svg[data-values]");
        const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!svg || !way) return;
        event.preventDefault();
        const longest = Object.values(read(svg).lines).reduce((a, b) => (b.length > a.length ? b : a));
        const now = longest.findIndex(([x]) => x >= Number(svg.dataset.at ?? longest[0][0]));
        const next = longest[Math.min(longest.length - 1, Math.max(0, (now < 0 ? longest.length - 1 : now) + way))];
        together(svg).forEach((one) => show(one, next[0]));
    });
})();
