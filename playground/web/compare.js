// Votes by the number keys, while a ballot is in sight and nobody is writing; copying an answer; and what is put into
// the cards that say what answers.
(() => {
    const writes = (place) => place?.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable=true]");
    const isShown = (place) => place && place.offsetParent !== null;
    const isInView = (place) => {
        const { top, bottom } = place.getBoundingClientRect();
        return bottom > 0 && top < window.innerHeight;
    };

    document.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || writes(event.target)) return;
        if (![...document.querySelectorAll("#ballot, #vote-buttons")].some((place) => isShown(place) && isInView(place))) return;
        const buttons = [...document.querySelectorAll("#vote-buttons button")].filter((one) => one.id !== "vote-skip" && isShown(one));
        const pressed = buttons[Number(event.key) - 1];
        if (!pressed) return;
        event.preventDefault();
        pressed.click();
    });

    document.addEventListener("click", async (event) => {
        const button = event.target.closest?.("[data-copy]");
        if (!button) return;
        try {
            await navigator.clipboard.writeText(button.dataset.copy);
            button.textContent = "Copied";
        } catch {
            button.textContent = "Not allowed here";
        }
        setTimeout(() => (button.textContent = "Copy"), 1500);
    });

    // What is offered, how many cards are used, and the fields of all of them as they are: an offer is taken where the
    // cards still hold what it was made in place of. The result: what was laid, how many cards, and each field; undefined leaves one as it is.
    const lay = (offered, count, ...fields) => {
        if (!offered) return undefined;
        const { before, after, laid } = JSON.parse(offered);
        const size = after[0].length;
        const now = (card, number) => fields[card * size + number] ?? "";
        if (Number(count) !== before.length || before.some((card, n) => card.some((value, k) => now(n, k) != value))) return undefined;
        const filled = after.map((card, n) => card.map((value, k) => (now(n, k) == value ? undefined : value)));
        return [laid, String(after.length), ...filled.flat()];
    };
    window.playgroundCards = { lay };
})();
