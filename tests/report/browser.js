// Every fault of the page that can be measured, as a list of texts.
() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  const short = node => (node.textContent || "").trim().replace(/\s+/g, " ").slice(0, 60);
  const shown = node => node.checkVisibility({ opacityProperty: true, visibilityProperty: true });

  if (document.documentElement.scrollWidth > width)
    faults.push(`the page is ${document.documentElement.scrollWidth} px wide and scrolls sideways`);

  // Text of the page: inside it, and not cut by its own box. What lies in a scrolling box may be wider.
  for (const node of document.querySelectorAll("main *")) {
    if (!shown(node) || node.closest("svg") || node.closest(".chart")) continue;
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    if (!node.closest(".scroll") && box.width && (box.right > width + 1 || box.left < -1))
      faults.push(`outside the page: <${node.localName}> "${short(node)}"`);
    if (["hidden", "clip"].includes(style.overflowX) && node.scrollWidth > node.clientWidth + 1)
      faults.push(`cut: <${node.localName}> "${short(node)}"`);
  }

  // Labels of the charts: inside the chart, and apart from each other.
  for (const svg of document.querySelectorAll(".chart svg")) {
    const frame = svg.getBoundingClientRect(), name = svg.closest(".chart").id;
    const labels = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim() && shown(t));
    const boxes = labels.map(t => ({ text: short(t), box: t.getBoundingClientRect() }));
    for (const { text, box } of boxes)
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        faults.push(`${name}: the label "${text}" leaves the chart`);
    for (let i = 0; i < boxes.length; i++)
      for (let j = i + 1; j < boxes.length; j++) {
        const [a, b] = [boxes[i], boxes[j]];
        const across = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
        const down = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
        // A line's box is higher than its letters, so some pixels may be shared.
        if (across > 1 && down > 3) faults.push(`${name}: the labels "${a.text}" and "${b.text}" overlap`);
      }
    if (frame.width < 150) faults.push(`${name}: ${Math.round(frame.width)} px wide`);
  }
  for (const chart of document.querySelectorAll(".chart"))
    if (!chart.querySelector("svg")) faults.push(`${chart.id}: not drawn`);

  // Contrast, WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the text and what is painted below it.
  const rgba = text => {
    const n = (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = c => [0, 1, 2].map(i => c[i] / 255).map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    const paper = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((below, layer) => over(layer, below), paper);
  };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !shown(node) || node.closest("script, style, noscript")) continue;
    const style = getComputedStyle(node), inChart = node.closest("svg");
    const ink = rgba(inChart ? style.fill : style.color);
    if (inChart) ink[3] *= Number(style.fillOpacity) * Number(style.opacity);
    const below = ground(inChart ? inChart.parentElement : node);
    const [a, b] = [light(over(ink, below)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const key = `${style.color}|${style.fill}|${below}`;
    if (ratio < (large ? 3 : 4.5) && !told.has(key)) {
      told.add(key);
      faults.push(`contrast ${ratio.toFixed(2)}: "${short(node)}"`);
    }
  }
  return faults;
};
