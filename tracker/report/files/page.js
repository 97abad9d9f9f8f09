"use strict";
// One time for everything: the head, the cursor in the curves, the slider. All curves share their left and right ends.
(() => {
  const byId = id => document.getElementById(id);
  const stored = id => JSON.parse(byId(id)?.textContent ?? "null");
  const numbers = stored("numbers"), views = stored("views"), head = byId("head");
  const seconds = numbers.seconds, first = seconds[0], last = seconds[seconds.length - 1];
  const charts = [...document.querySelectorAll(".chart")], values = [...document.querySelectorAll("b[data-chart]")];
  const alone = seconds.length < 2, from = alone ? first - 0.5 : first, to = alone ? last + 0.5 : last;
  const [left, right] = numbers.ends;
  let close = true;

  function nearest(time) {
    let low = 0, high = seconds.length - 1;
    while (low < high) { const mid = (low + high) >> 1; if (seconds[mid] < time) low = mid + 1; else high = mid; }
    return low > 0 && time - seconds[low - 1] < seconds[low] - time ? low - 1 : low;
  }

  function show(time) {
    const index = nearest(time), x = left + (time - from) / (to - from) * (right - left);
    for (const chart of charts) {
      const line = chart.querySelector(".cursor");
      line.setAttribute("x1", x); line.setAttribute("x2", x); line.style.visibility = "visible";
    }
    for (const b of values) {
      const value = numbers.charts[b.dataset.chart].curves[b.dataset.curve].values[index];
      b.textContent = value === null ? "–" : String(value);
    }
    if (close && views?.centres) head.cameraTarget = views.centres[index].map(x => x + "m").join(" ");  // of a head that goes far
    if (head) { byId("time").value = time; byId("clock").textContent = numbers.photos ? "photo " + index : time.toFixed(2) + " s · " + index * numbers.every; }
  }

  function go(time) {
    time = Math.min(Math.max(time, first), last);
    if (head?.loaded) { head.pause(); byId("play").textContent = "play"; head.currentTime = Math.min(time, Math.max(head.duration - 1e-3, 0)); }  // at its end it would begin again
    show(time);
  }

  for (const chart of charts) {
    const moved = event => {
      const box = chart.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * 1000;
      go(from + (x - left) / (right - left) * (to - from));
    };
    chart.addEventListener("pointerdown", moved);
    chart.addEventListener("pointermove", event => { if (event.buttons) moved(event); });
  }
  for (const figure of document.querySelectorAll("[data-seconds]"))
    figure.addEventListener("click", () => go(Number(figure.dataset.seconds)));
  show(first);
  if (!head) return;

  const trouble = text => { byId("trouble").textContent = text; };
  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), c => c.charCodeAt(0));
    byId(id).remove();
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  }
  function look(name) {
    const view = views[name], [x, y, z] = views.target;
    close = name === "close";
    head.minFieldOfView = "1deg"; head.maxFieldOfView = "160deg"; head.minCameraOrbit = "auto auto 0.05m"; head.maxCameraOrbit = "auto auto 20m";
    // the camera stands on the axis x = y = 0; the close view stands in front of the head
    head.cameraTarget = name === "camera" ? `0m 0m ${z}m` : `${x}m ${y}m ${z}m`;
    head.cameraOrbit = `0deg 90deg ${view.distance}m`;
    head.fieldOfView = view.fov + "deg";
    head.style.aspectRatio = view.aspect ?? ""; head.style.height = view.aspect ? "auto" : "";
    head.jumpCameraToGoal?.();
  }

  byId("time").min = first; byId("time").max = last;
  byId("time").addEventListener("input", event => go(Number(event.target.value)));
  byId("play").addEventListener("click", () => {
    if (head.paused) { head.play(); byId("play").textContent = "pause"; } else { head.pause(); byId("play").textContent = "play"; }
  });
  byId("view").addEventListener("click", event => {
    const camera = event.target.textContent === "from the camera";
    look(camera ? "camera" : "close");
    event.target.textContent = camera ? "close" : "from the camera";
    show(Number(byId("time").value));
  });
  head.addEventListener("load", () => {
    look("close");
    if (numbers.photos || alone) go(first); else head.play();  // between photos there is no motion
    const follow = () => { if (!head.paused) show(Math.min(head.currentTime, last)); requestAnimationFrame(follow); };
    follow();
  });
  head.addEventListener("error", () => trouble("The head cannot be shown here; open head.glb in another viewer."));
  (async () => {
    if (!window.DecompressionStream) return trouble("This browser is too old to show the moving head; open head.glb in another viewer.");
    try {
      const code = document.createElement("script");
      code.textContent = await (await unpacked("viewer-code")).text();
      document.head.append(code);
      head.src = URL.createObjectURL(await unpacked("head-file"));
    } catch (error) { trouble("The head cannot be shown here (" + error.message + ")."); }
  })();
})();
