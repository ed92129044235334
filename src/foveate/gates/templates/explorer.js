"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  if (!data.images.length || !data.arms.length) return;
  const [picture, arm, layer, head, other, fade] = ["picture", "arm", "layer", "head", "other", "fade"].map(find);
  const stage = find("stage"), strip = find("strip"), CAM = "cam ";
  const mark = { x: 0.5, y: 0.5, shown: false };

  // Values: a byte for each, from low to high.
  const values = (packed, k, count) => {
    const bytes = atob(packed.data.slice(k * packed.step, (k + 1) * packed.step));
    const scale = (packed.high - packed.low) / 255;
    return Float32Array.from({ length: count }, (_, i) => packed.low + scale * bytes.charCodeAt(i));
  };
  // The same scale as in foveate.gates.colour: 0 to 1, with 0.5 for a gate of 1.
  const place = (gate) => {
    const change = Math.min(Math.max(gate, 0), 2) - 1;
    return Math.abs(change) < data.unchanged ? 0.5 : 0.5 + Math.sign(change) * Math.sqrt(Math.abs(change)) / 2;
  };
  const paint = (canvas, width, height, colour) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) image.data.set([...colour(i), 255], 4 * i);
    context.putImageData(image, 0, 0);
  };
  const gateColour = (gate) => data.palette[Math.round(place(gate) * (data.palette.length - 1))];
  const words = (numbers) => {
    const [inside, area, entropy, saturated] = numbers, percent = (share) => `${Math.round(100 * share)} %`;
    return [
      inside !== null && area !== null && `inside ${percent(inside)}, area ${percent(area)}`,
      entropy !== null && `entropy ${entropy.toFixed(2)}`,
      saturated !== null && `saturated ${percent(saturated)}`,
    ].filter(Boolean).join(" · ");
  };
  const options = (select, texts, keep) => {
    const before = keep && select.selectedOptions[0]?.textContent;
    select.replaceChildren(...texts.map(([value, text]) => new Option(text, value)));
    const same = [...select.options].find((option) => option.textContent === before);
    if (same) same.selected = true;
  };

  const panes = [0, 1].map(() => {
    const figure = find("pane").content.firstElementChild.cloneNode(true);
    const part = (name) => figure.querySelector(`.${name}`);
    const pane = {
      figure, part, frame: part("frame"), veil: part("veil"), numbers: part("numbers"), gate: null,
    };
    stage.append(figure);
    pane.frame.addEventListener("pointermove", (event) => point(event, pane));
    pane.frame.addEventListener("pointerdown", (event) => point(event, pane));
    return pane;
  });

  const point = (event, pane) => {
    const box = pane.frame.getBoundingClientRect();
    Object.assign(mark, { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, shown: true });
    showMark();
  };
  const showMark = () => {
    mark.x = Math.min(Math.max(mark.x, 0), 0.9999);
    mark.y = Math.min(Math.max(mark.y, 0), 0.9999);
    for (const pane of panes) {
      const at = pane.part("mark"), gate = pane.gate;
      at.hidden = !mark.shown;
      at.style.left = `${100 * mark.x}%`;
      at.style.top = `${100 * mark.y}%`;
      if (!gate) continue;
      const cell = Math.floor(mark.y * gate.height) * gate.width + Math.floor(mark.x * gate.width);
      pane.part("value").textContent = mark.shown ? `At the mark: ${gate.values[cell].toFixed(3)}` : `From ${gate.low.toFixed(3)} to ${gate.high.toFixed(3)}`;
    }
  };

  // What bars show: gates of channels, or how much attention between channels reads each.
  const bars = (kind) => kind.startsWith("channel_pairs") ? "Channels, by how much they are read" : kind.replace("channel", "Channel gates");
  const showMap = (pane, shown, k, colour, label) => {
    pane.veil.hidden = !shown;
    pane.gate = null;
    if (!shown) {
      pane.part("value").textContent = label;
      return;
    }
    const found = values(shown, k, shown.width * shown.height);
    pane.gate = { values: found, width: shown.width, height: shown.height, low: Math.min(...found), high: Math.max(...found) };
    paint(pane.veil, shown.width, shown.height, (i) => colour(found[i]));
    pane.veil.setAttribute("aria-label", `${label}: from ${pane.gate.low.toFixed(3)} to ${pane.gate.high.toFixed(3)}`);
  };
  const showBars = (place, channels, k) => {
    const group = find("channels").content.firstElementChild.cloneNode(true), canvas = group.querySelector(".bars");
    const note = group.querySelector(".numbers"), what = bars(channels.kind);
    group.firstElementChild.textContent = `${what}, sorted`;
    place.append(group);
    const found = values(channels, k, channels.count), sorted = [...found.entries()].sort((a, b) => b[1] - a[1]);
    canvas.addEventListener("pointermove", (event) => {
      const [channel, value] = sorted[Math.min(sorted.length - 1, Math.floor(event.offsetX / canvas.clientWidth * sorted.length))];
      note.textContent = `channel ${channel}: ${value.toFixed(3)}`;
    });
    const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
    const wide = canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio)), high = canvas.height = Math.round(canvas.clientHeight * ratio);
    const top = Math.max(1.05, sorted[0][1]), style = getComputedStyle(canvas), one = high * (1 - 1 / top);
    context.fillStyle = style.color;
    sorted.forEach(([, value], i) => {
      const left = Math.floor(i * wide / found.length), right = Math.max(left + 1, Math.floor((i + 1) * wide / found.length) - (wide > 4 * found.length));
      context.fillRect(left, high * (1 - Math.max(value, 0) / top), right - left, high);
    });
    context.fillStyle = style.borderTopColor;
    context.fillRect(0, Math.round(one), wide, Math.max(1, ratio));
    const [most, least] = [sorted[0], sorted.at(-1)];
    canvas.setAttribute("aria-label", `${what}, sorted: ${found.length} channels, from channel ${most[0]} with ${most[1].toFixed(3)} down to channel ${least[0]} with ${least[1].toFixed(3)}; the line is 1`);
    note.textContent = [`from ${least[1].toFixed(3)} to ${most[1].toFixed(3)}`, words(channels.numbers[k]), channels.dead && `dead: ${channels.dead}`].filter(Boolean).join(" · ");
    if (channels.features) showExtremes(group.querySelector(".extremes"), channels, k, found);
  };
  const showExtremes = (place, channels, k, gates) => {
    const features = channels.features, read = channels.kind.startsWith("channel_pairs");
    const size = features.width * features.height, found = values(features, k, size * features.shown), half = features.shown / 2;
    const figure = (j) => {
      const box = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
      const channel = channels.extremes[k][j];
      paint(canvas, features.width, features.height, (i) => Array(3).fill(Math.round(255 * found[j * size + i])));
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${read ? "Features of" : "What enters the gate in"} channel ${channel}`);
      caption.textContent = `${channel}: ${gates[channel].toFixed(2)}`;
      box.append(canvas, caption);
      return box;
    };
    place.replaceChildren(...(read ? ["Read most", "Read least"] : ["Pass most", "Pass least"]).map((text, part) => {
      const group = document.createElement("div"), title = document.createElement("h4");
      title.textContent = text;
      group.append(title, ...Array.from({ length: half }, (_, j) => figure(part * half + j)));
      return group;
    }));
  };

  const showPane = (pane, one, cam, site, kind) => {
    const k = Number(picture.value), image = data.images[k];
    const there = k < one.words.length, shownCam = cam === null ? null : one.cams[cam];
    const found = there && !shownCam && one.layers.find((each) => each.site === site);
    pane.part("words").textContent = there ? one.words[k] : "not recorded for this image";
    pane.part("photo").src = image.uri;
    pane.part("photo").alt = image.name;
    pane.frame.style.aspectRatio = `${image.width} / ${image.height}`;
    pane.part("outline").setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
    pane.part("outline").firstElementChild.setAttribute("d", image.boxes);
    const heads = found ? found.heads : [], prefer = [kind, "spatial", "full", "row × column", "pairwise"];
    const shown = shownCam ? there && shownCam : prefer.map((name) => heads.find((each) => each.kind === name)).find(Boolean) || heads[0];
    const what = shownCam ? `Grad-CAM: ${shownCam.what}, at ${shownCam.layer}` : `${site} · ${shown?.kind || found?.channels[0]?.kind || "channel"}`;
    pane.part("label").textContent = one.label;
    pane.part("what").textContent = what;
    showMap(pane, shown || null, k, shownCam ? (value) => gateColour(1 + value) : gateColour, shown ? `${one.label}, ${what}` : !found ? "No gate at this layer" : "Weighs channels only");
    pane.numbers.textContent = !shown ? "" : [words(shown.numbers[k]), shown.dead && `dead: ${shown.dead}`].filter(Boolean).join(" · ");
    const every = pane.part("every");
    every.replaceChildren();
    for (const channels of found ? found.channels : []) showBars(every, channels, k);
  };
  const show = () => {
    const one = data.arms[Number(arm.value)], compared = other.value !== "", cam = other.value.startsWith(CAM) ? Number(other.value.slice(CAM.length)) : null;
    const site = one.layers[Number(layer.value)]?.site ?? "", kind = head.value;
    panes[1].figure.hidden = !compared;
    stage.classList.toggle("two", compared);
    showPane(panes[0], one, null, site, kind);
    if (compared) showPane(panes[1], cam === null ? data.arms[Number(other.value)] : one, cam, site, kind);
    showMark();
    const k = Number(picture.value);
    find("status").textContent = `Image ${k + 1} of ${data.images.length}, ${data.images[k].name}. Layer ${site}, ${kind || "channel gates only"}. ${panes[0].numbers.textContent || panes[0].part("every").querySelector(".numbers")?.textContent || ""}`;
    [...strip.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === k)));
    const button = strip.children[k];
    strip.scrollTo({ left: button.offsetLeft - strip.clientWidth / 2 + button.clientWidth / 2 });
  };
  const chooseLayer = () => {
    const found = data.arms[Number(arm.value)].layers[Number(layer.value)];
    const heads = found ? found.heads.map((each) => [each.kind, each.kind]) : [];
    options(head, heads.length ? heads : [["", "channels only"]], true);
    show();
  };
  const chooseArm = () => {
    const one = data.arms[Number(arm.value)];
    options(layer, one.layers.map((each, k) => [k, each.site]), true);
    const others = data.arms.map((each, k) => [k, each.label]).filter(([k]) => k !== Number(arm.value));
    options(other, [["", "nothing"], ...one.cams.map((cam, k) => [CAM + k, `Grad-CAM: ${cam.what}`]), ...others], true);
    chooseLayer();
  };
  const step = (select, by, then) => {
    const to = select.selectedIndex + by;
    if (to < 0 || to >= select.options.length) return;
    select.selectedIndex = to;
    then();
  };

  options(picture, data.images.map((image, k) => [k, `${k + 1}. ${image.name}`]));
  options(arm, data.arms.map((each, k) => [k, each.label]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      const image = entry.target.firstElementChild;
      image.src = data.images[Number(entry.target.value)].uri;
      watch.unobserve(entry.target);
    }
  }, { root: strip, rootMargin: "200px" });
  data.images.forEach((image, k) => {
    const button = document.createElement("button"), thumbnail = document.createElement("img");
    button.type = "button";
    button.value = String(k);
    button.title = image.name;
    thumbnail.alt = `${k + 1}. ${image.name}`;
    button.append(thumbnail);
    button.addEventListener("click", () => { picture.value = String(k); show(); });
    strip.append(button);
    watch.observe(button);
  });
  picture.addEventListener("change", show);
  arm.addEventListener("change", chooseArm);
  layer.addEventListener("change", chooseLayer);
  head.addEventListener("change", show);
  other.addEventListener("change", show);
  fade.addEventListener("input", () => stage.style.setProperty("--fade", fade.value / 100));
  find("boxes")?.addEventListener("change", (event) => stage.classList.toggle("hide-boxes", !event.target.checked));
  stage.addEventListener("pointerleave", () => { mark.shown = false; showMark(); });
  document.addEventListener("keydown", (event) => {
    const within = stage.contains(event.target), sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key], upright = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey || (!sideways && !upright) || !(within || event.target === document.body)) return;
    if (event.shiftKey && within) {
      Object.assign(mark, { x: mark.x + 0.02 * (sideways || 0), y: mark.y + 0.02 * (upright || 0), shown: true });
      showMark();
      find("status").textContent = panes.filter((pane) => !pane.figure.hidden).map((pane) => pane.part("value").textContent).join(" and ");
    } else if (sideways) step(layer, sideways, chooseLayer);
    else if (within) step(picture, upright, show);
    else return;
    event.preventDefault();
  });
  window.addEventListener("resize", show);
  find("explorer").hidden = false;
  chooseArm();
})();
