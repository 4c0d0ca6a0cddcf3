"use strict";
// The numbers under the pointer. Charts are whole without it.
(() => {
  const tip = document.getElementById("tip");
  const si = v => v >= 999500 ? (v / 1e6).toFixed(2) + " M" : v >= 9995 ? (v / 1e3).toFixed(1) + " k" : v >= 100 || v % 1 === 0 ? Math.round(v).toLocaleString("en") : v.toFixed(1);
  const units = {
    rate: v => si(v) + "/s", count: si, cores: v => v.toFixed(2),
    mib: v => v.toFixed(0) + " MiB",
    us: v => v < 1e3 ? v + " \u00b5s" : v < 1e6 ? (v / 1e3).toFixed(v < 1e4 ? 1 : 0) + " ms" : (v / 1e6).toFixed(1) + " s",
  };
  const place = (x, y) => {
    tip.hidden = false;
    tip.style.left = "0";
    const { offsetWidth: w, offsetHeight: h } = tip;
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - w - 6)) + "px";
    tip.style.top = Math.max(4, y + h + 20 > innerHeight ? y - h - 12 : y + 14) + "px";
  };
  const add = (parent, name, text, cls) => {
    const node = parent.appendChild(document.createElement(name));
    if (text) node.textContent = text;
    if (cls) node.className = cls;
    return node;
  };
  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll(".cross").forEach(line => line.setAttribute("visibility", "hidden"));
  };
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const source = document.querySelector(`script[data-for="${svg.dataset.chart}"]`);
    if (!source) continue;
    const data = JSON.parse(source.textContent);
    const left = +svg.dataset.left, plot = +svg.dataset.plot, cross = svg.querySelector(".cross");
    const show = event => {
      if (!data.places.length) return;
      const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      const at = data.from + ((event.clientX - box.left) * scale - left) / plot * (data.to - data.from);
      let best = 0;
      data.places.forEach((p, i) => { if (Math.abs(p - at) < Math.abs(data.places[best] - at)) best = i; });
      const x = left + (data.places[best] - data.from) / (data.to - data.from) * plot;
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
      cross.setAttribute("visibility", "visible");
      tip.replaceChildren();
      add(tip, "b", data.words[best]);
      for (const s of data.series) {
        const v = s.values[best];
        if (v === null || v === undefined) continue;
        const row = add(tip, "span"), name = add(row, "span");
        add(name, "i", "", s.class);
        name.append(s.name);
        add(row, "em", units[s.unit](v));
      }
      place(event.clientX, event.clientY);
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }
  for (const bar of document.querySelectorAll("[data-tip]")) {
    bar.removeAttribute("title");
    const show = event => { tip.replaceChildren(document.createTextNode(bar.dataset.tip)); place(event.clientX, event.clientY); };
    bar.addEventListener("pointermove", show);
    bar.addEventListener("pointerdown", show);
    bar.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
})();
