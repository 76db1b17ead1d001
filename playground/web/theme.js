// Light or dark, and large type: what was chosen last stays, before anything is drawn. Until a choice, the system's.
(() => {
    const kept = (name) => { try { return localStorage.getItem(`playground-${name}`); } catch { return null; } };
    const keep = (name, value) => { try { localStorage.setItem(`playground-${name}`, value); } catch { /* private window */ } };
    const url = new URL(window.location);
    const theme = kept("theme");
    if (theme && !url.searchParams.has("__theme")) {
        url.searchParams.set("__theme", theme);
        window.history.replaceState({}, "", url);
    }
    document.documentElement.classList.toggle("projector", kept("projector") === "yes");
    window.playgroundTheme = {
        dark: () => keep("theme", document.body.classList.toggle("dark") ? "dark" : "light"),
        projector: () => keep("projector", document.documentElement.classList.toggle("projector") ? "yes" : "no"),
    };
})();
