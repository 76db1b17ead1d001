// The list of runs: what is looked for, in which order, and which runs are picked to be compared. The server makes the
// list (`live`); this asks for it, and keeps what was picked while the list is made anew.
(() => {
    const picked = new Set();
    let order = "newest", waiting = null;

    const ask = (name, words) => {
        const place = document.querySelector(`[data-live="${name}"], [data-live^="${name}~"]`);
        if (!place) return;
        place.dataset.live = `${name}~${words.map(encodeURIComponent).join("/")}`;
        window.playground.look();
    };

    const list = () => ask("runs", [order, document.querySelector("#runs-search textarea, #runs-search input")?.value ?? ""]);

    const mark = () => {
        for (const box of document.querySelectorAll("[data-pick]")) box.checked = picked.has(box.dataset.pick);
    };

    const pick = (id, is) => {
        if (is) picked.add(id);
        else if (id === "all") picked.clear();
        else picked.delete(id);
        mark();
        const many = picked.size > 1 ? "several" : picked.size ? "one" : "none";
        document.querySelector("#run-column").dataset.picked = many; // the style sheet shows what belongs to it
        ask("picked", [...picked]);
        window.playground.write("picked-runs", [...picked].join(" "));
    };

    document.addEventListener("input", (event) => {
        if (!event.target.closest?.("#runs-search")) return;
        clearTimeout(waiting);
        waiting = setTimeout(list, 120);
    });
    document.addEventListener("change", (event) => {
        const box = event.target.closest?.("[data-pick]");
        if (box) pick(box.dataset.pick, box.checked);
    });
    document.addEventListener("click", (event) => {
        const sort = event.target.closest?.("[data-sort]"), away = event.target.closest?.("[data-unpick]");
        if (away) pick(away.dataset.unpick, false);
        if (sort) {
            order = sort.dataset.sort;
            list();
        }
    });
    document.addEventListener("filled", mark);
})();
