// Keeps what a page shows of its run up to date. Elements with `data-live="NAME"` are filled with the server's HTML
// (server-made and escaped there); Gradio hears of it only when a run begins, ends, comes or goes.
(() => {
    const EVERY = 1000;
    const have = {}, html = {};
    let key = "", moment = null, latest = null, boot = null, run = null, failures = 0, busy = false, again = false, asked = "";

    const chosen = () => document.querySelector("#chosen-run [data-run]")?.dataset.run ?? "";
    const places = () => [...document.querySelectorAll("[data-live]")].filter((place) => place.offsetParent !== null);
    const names = () => [...new Set(places().map((place) => place.dataset.live))];

    // what gives the keyboard back to the element that had it, once its place is filled anew
    const focus = (place) => {
        const had = place.contains(document.activeElement) ? document.activeElement : null;
        const mark = had && [...had.attributes].find((one) => one.name.startsWith("data-"));
        if (!mark) return null;
        const isIt = (one) => one.getAttribute(mark.name) === mark.value && one.tagName === had.tagName;
        return () => [...place.querySelectorAll(`[${mark.name}]`)].find(isIt)?.focus({ preventScroll: true });
    };

    const fill = () => {
        for (const place of places()) {
            const name = place.dataset.live;
            if (name in html && place.dataset.has !== have[name]) {
                const focused = focus(place);
                place.innerHTML = html[name];
                place.dataset.has = have[name];
                place.dispatchEvent(new CustomEvent("filled", { bubbles: true }));
                focused?.();
            }
        }
    };

    const remember = () => {
        const url = new URL(window.location);
        if (run && url.searchParams.get("run") !== run) {
            url.searchParams.set("run", run);
            window.history.replaceState({}, "", url);
        }
    };

    // what scrolls by itself can be reached, and scrolled, by keys
    const SCROLLS = "#data-rows, #data-findings, #data-pictures, #data-division, #run-column, #runs";
    const reach = () => document.querySelectorAll(SCROLLS).forEach((place) => { place.tabIndex = 0; });

    // what Gradio keeps is of the moment at which the page was opened, and then of each at which it was asked again
    const follow = () => {
        moment ??= document.querySelector("#opened-at :is(textarea, input)")?.value || null;
        if (moment === null || latest === null || latest === moment) return;
        moment = latest;
        document.querySelector("#refresh")?.click();
    };

    const offline = (is) => document.documentElement.classList.toggle("playground-offline", is);

    const look = async () => {
        if (busy) again = true;
        if (busy || document.hidden || !document.querySelector("#chosen-run")) return;
        busy = true;
        try {
            if (run !== chosen()) {
                run = chosen();
                remember();
                key = "";
            }
            const shown = names();
            if (shown.join() !== asked) key = ""; // what was not looked at meanwhile may be old
            asked = shown.join();
            const query = new URLSearchParams({ run, key, have: shown.map((name) => `${name}:${have[name] ?? ""}`).join(",") });
            const answer = await fetch(`live?${query}`);
            if (!answer.ok) throw new Error(answer.statusText); // what is shown is not up to date then
            failures = 0;
            offline(false);
            if (answer.status === 200) {
                const news = await answer.json();
                if (boot !== null && news.boot !== boot) return window.location.reload();
                boot = news.boot;
                key = news.key;
                for (const [name, [hash, text]] of Object.entries(news.parts)) {
                    have[name] = hash;
                    html[name] = text;
                }
                latest = news.moment;
            }
            follow();
            fill();
            reach();
        } catch {
            if (++failures > 2) offline(true);
        } finally {
            busy = false;
            if (again) {
                again = false;
                look();
            }
        }
    };

    // writes into a hidden text box of Gradio's, as if somebody had typed it
    const write = (id, text) => {
        const field = document.querySelector(`#${id} textarea, #${id} input`);
        if (!field) return;
        const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set;
        set.call(field, text);
        field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    // a press on something that stands for a run chooses that run
    const choose = (id) => write("choose-run", `${id} ${Date.now()}`);
    document.addEventListener("click", (event) => {
        const pressed = event.target.closest?.("[data-choose], [data-into]");
        if (!pressed) return;
        if (pressed.dataset.choose) choose(pressed.dataset.choose);
        else write(pressed.dataset.into, `${pressed.dataset.value} ${Date.now()}`); // else the same twice is no change
    });

    // a press may open a room: what it shows is asked for as soon as it is there
    const lookIfOther = () => { if (names().join() !== asked) look(); };
    document.addEventListener("click", () => [100, 200, 400, 700].forEach((wait) => setTimeout(lookIfOther, wait)));

    setInterval(look, EVERY);
    document.addEventListener("visibilitychange", look);
    window.playground = { look, choose, write };
})();
