// Gradio's progress display counts the time that passes once a frame, and the one of the page's own loading never ends: an
// open page would cost some per cent of a core for nothing. That counter runs four times a second here; every other
// callback gets its frame. Has to run before Gradio's own scripts, which keep the function as they find it.
(() => {
    const frame = window.requestAnimationFrame.bind(window);
    const isCounter = (source) => source.length < 120 && source.includes("performance.now()-") && source.includes("/1e3");
    window.requestAnimationFrame = (callback) =>
        isCounter(callback.toString()) ? setTimeout(() => callback(performance.now()), 250) : frame(callback);
})();
