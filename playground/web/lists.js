// A list of choices can change while it is open, because a run came or went. Its entries move below the pointer then: a
// press that was meant for one of them would take another one. It is not taken; the next one is.
(() => {
    let seen = null; // the entry below the pointer, and what it said when the pointer last moved

    const look = (event) => {
        const entry = event.target.closest?.("[data-testid=dropdown-option]");
        seen = entry && { entry, said: entry.ariaLabel };
    };

    const press = (event) => {
        const before = seen;
        look(event);
        if (!seen || before?.entry !== seen.entry || before.said === seen.said) return;
        event.stopImmediatePropagation();
        event.preventDefault(); // the list stays open
    };

    window.addEventListener("mousemove", look, true);
    window.addEventListener("mousedown", press, true);
})();
