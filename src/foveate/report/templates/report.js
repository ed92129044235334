"use strict";
(() => {
  const find = (id) => document.getElementById(id);

  const copy = find("copy"), command = find("command-text");
  if (navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  const source = find("maps-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  if (!data.length) return;
  const explorer = find("explorer"), arms = find("pick-arm"), gates = find("pick-gate"), strip = find("strip"), big = find("big");
  let chosen = 0;

  const option = (select, words, value) => {
    const element = document.createElement("option");
    element.textContent = words;
    element.value = value;
    select.append(element);
  };
  const draw = (svg, arm, gate, i) => {
    const [use, veil, boxes] = svg.children, image = arm.images[i];
    svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
    use.setAttribute("href", `#${image.id}`);
    veil.setAttribute("href", gate.maps[i]);
    veil.setAttribute("width", image.width);
    veil.setAttribute("height", image.height);
    boxes.setAttribute("d", image.boxes);
    svg.setAttribute("aria-label", `${arm.label}, ${gate.name}: ${image.words}`);
  };
  const current = () => {
    const arm = data[Number(arms.value)];
    return [arm, arm.gates[Number(gates.value)]];
  };
  const show = () => {
    const [arm, gate] = current();
    chosen = Math.min(chosen, arm.images.length - 1);
    draw(big, arm, gate, chosen);
    find("big-caption").textContent = arm.images[chosen].words;
    find("gate-note").textContent = `The values of this gate run ${gate.span}. ${gate.note}`;
    [...strip.children].forEach((button, i) => {
      draw(button.firstChild, arm, gate, i);
      button.setAttribute("aria-pressed", String(i === chosen));
    });
  };
  const chooseArm = () => {
    const arm = data[Number(arms.value)], before = gates.selectedOptions[0]?.textContent;
    gates.replaceChildren();
    arm.gates.forEach((gate, k) => option(gates, gate.name, k));
    const same = arm.gates.findIndex((gate) => gate.name === before);
    gates.value = String(same >= 0 ? same : arm.first);
    strip.replaceChildren(...arm.images.map((image, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(big.cloneNode(true));
      button.firstChild.removeAttribute("id");
      button.addEventListener("click", () => { chosen = i; show(); });
      return button;
    }));
    show();
  };

  data.forEach((arm, k) => option(arms, arm.label, k));
  arms.addEventListener("change", chooseArm);
  gates.addEventListener("change", show);
  find("fade").addEventListener("input", (event) => explorer.parentElement.style.setProperty("--fade", event.target.value / 100));
  find("show-box")?.addEventListener("change", (event) => explorer.parentElement.classList.toggle("hide-box", !event.target.checked));
  explorer.hidden = false;
  chooseArm();
})();
