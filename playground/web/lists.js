// A list of choices can change while it is open, because a run came or went. Its entries move below the pointer then: a
// press that was meant for one of them would take another one. For half a second no press is taken.
(() => {
    const PAUSE = 500;
    let seen = null; // the entry below the pointer, and what it said
    let changed = -Infinity; // when it said something else

    const look = (event) => {
        const entry = event.target.closest?.("[data-testid=dropdown-option]");
        if (entry && seen?.entry === entry && seen.said !== entry.ariaLabel) changed = event.timeStamp;
        seen = entry && { entry, said: entry.ariaLabel };
    };

    const press = (event) => {
        look(event);
        if (!seen || event.timeStamp - changed > PAUSE) return;
        event.stopImmediatePropagation();
        event.preventDefault(); // the list stays open
    };

    window.addEventListener("mousemove", look, true);
    window.addEventListener("mousedown", press, true);
    window.addEventListener("input", () => { seen = null; }, true); // who writes changes the list himself
})();
