// Votes by the number keys, while a ballot is in sight and nobody is writing; and copying an answer.
(() => {
    const writes = (place) => place?.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable=true]");
    const inSight = (place) => place && place.offsetParent !== null;

    document.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || writes(event.target)) return;
        const buttons = [...document.querySelectorAll("#vote-buttons button")].filter((one) => one.id !== "vote-skip" && inSight(one));
        const pressed = buttons[Number(event.key) - 1];
        if (!pressed) return;
        event.preventDefault();
        pressed.click();
    });

    document.addEventListener("click", async (event) => {
        const button = event.target.closest?.("[data-copy]");
        if (!button) return;
        const text = [...button.parentElement.querySelectorAll(".last")].map((one) => one.textContent).join("\n\n");
        try {
            await navigator.clipboard.writeText(text);
            button.textContent = "Copied";
        } catch {
            button.textContent = "Not allowed here";
        }
        setTimeout(() => (button.textContent = "Copy"), 1500);
    });
})();
