// Charts, as SVG, with values to read off them. Labels and names reach the page as text nodes only.

const data = JSON.parse(document.getElementById('data').textContent);
const find = (id) => document.getElementById(id);

// --- elements ----------------------------------------------------------------------------------------------------

function make(space, name, attributes, children) {
  const node = space ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...(children || []));
  return node;
}
const html = (name, attributes, ...children) => make(false, name, attributes, children);
const svg = (name, attributes, ...children) => make(true, name, attributes, children);
const clamp = (x, least, most) => Math.min(Math.max(x, least), most);

function short(x) {
  if (x === 0 || !Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  if (size < 1e-3 || size >= 1e6) return Number(x.toPrecision(3)).toExponential();
  return String(Number(x.toPrecision(4)));
}

// --- charts ------------------------------------------------------------------------------------------------------

// Round numbers within least..most, about `count` of them.
function ticks(least, most, count) {
  const raw = (most - least) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999) || raw;
  const out = [];
  for (let i = Math.ceil(least / step - 1e-9); i * step <= most + step * 1e-9; i++) out.push(i * step);
  return out;
}
function powers(least, most) {
  const out = [];
  for (let i = Math.ceil(Math.log10(least) - 1e-9); 10 ** i <= most * 1.000001; i++) out.push(10 ** i);
  return out;
}

// A frame with axes; `x` and `y` are {range: [a, b], log, label, format}. Gives the drawing and its two scales.
function frame(width, height, x, y) {
  const [left, right, top, bottom] = [x.left || 46, 8, 8, x.label ? 34 : 20];
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : (v) => v;
    const [a, b] = axis.range.map(f);
    return (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
  };
  const [sx, sy] = [scale(x, left, width - right), scale(y, height - bottom, top)];
  const root = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img' });
  const marks = (axis, count) => axis.ticks || (axis.log ? powers(...axis.range) : ticks(...axis.range, count));
  for (const v of marks(y, 4)) {
    root.append(svg('line', { class: 'grid', x1: left, x2: width - right, y1: sy(v), y2: sy(v) }));
    root.append(svg('text', { x: left - 6, y: sy(v) + 4, 'text-anchor': 'end' }, (y.format || short)(v)));
  }
  for (const v of marks(x, Math.round(width / 90))) {
    root.append(svg('line', { class: 'axis', x1: sx(v), x2: sx(v), y1: height - bottom, y2: height - bottom + 4 }));
    root.append(svg('text', { x: sx(v), y: height - bottom + 16, 'text-anchor': 'middle' }, (x.format || short)(v)));
  }
  root.append(svg('line', { class: 'axis', x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  if (x.label) root.append(svg('text', { x: (left + width - right) / 2, y: height - 4, 'text-anchor': 'middle' }, x.label));
  if (y.label) root.append(svg('text', { x: -(top + height - bottom) / 2, y: 11, 'text-anchor': 'middle', transform: 'rotate(-90)' }, y.label));
  return { root, sx, sy, left, right: width - right, top, bottom: height - bottom };
}
const path = (points, f, kind) =>
  svg('path', { class: kind, d: points.map(([x, y], i) => `${i ? 'L' : 'M'}${f.sx(x).toFixed(1)} ${f.sy(y).toFixed(1)}`).join('') });

// Reads values off a chart: by pointer, or with the arrow keys once it has the focus. `points` in the order of x; `say(i)` tells one.
function readable(f, points, say) {
  const line = svg('line', { class: 'cursor', y1: f.top, y2: f.bottom, visibility: 'hidden' });
  const spot = svg('circle', { class: 'point', r: 3.5, visibility: 'hidden' });
  f.root.append(line, spot);
  f.root.setAttribute('tabindex', '0');
  let at = points.length - 1;
  const show = (i) => {
    at = clamp(i, 0, points.length - 1);
    const [x, y] = [f.sx(points[at][0]), f.sy(points[at][1])];
    for (const [k, v] of [['x1', x], ['x2', x], ['visibility', 'visible']]) line.setAttribute(k, v);
    for (const [k, v] of [['cx', x], ['cy', y], ['visibility', 'visible']]) spot.setAttribute(k, v);
    say(at);
  };
  const hide = () => {
    for (const mark of [line, spot]) mark.setAttribute('visibility', 'hidden');
    say(-1);
  };
  f.root.addEventListener('pointermove', (event) => {
    const box = f.root.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * f.root.viewBox.baseVal.width;
    let best = 0;
    points.forEach((p, i) => { if (Math.abs(f.sx(p[0]) - x) < Math.abs(f.sx(points[best][0]) - x)) best = i; });
    show(best);
  });
  f.root.addEventListener('pointerleave', hide);
  f.root.addEventListener('focus', () => { if (f.root.matches(':focus-visible')) show(at); });
  f.root.addEventListener('blur', hide);
  f.root.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 20, PageDown: -20, Home: -1e9, End: 1e9 }[event.key];
    if (by) { event.preventDefault(); show(at + by); }
  });
}

function smooth(points) {
  const reach = Math.floor(points.length / 50);
  return points.map(([x], i) => {
    const part = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [x, part.reduce((sum, p) => sum + p[1], 0) / part.length];
  });
}

// Figures whose names in the metrics are short.
const NAMES = { lr: 'learning rate', grad_norm: 'gradient norm', ece: 'calibration error', top1: 'top-1, %', top5: 'top-5, %', nll: 'NLL', nll_at_temperature: 'NLL at temperature' };

function curves(section) {
  const { curves: all, phases } = data[section];
  for (const { name, points } of all) {
    const value = html('span');
    const values = points.map((p) => p[1]);
    let [least, most] = [Math.min(...values), Math.max(...values)];
    if (least > 0 && least < 0.6 * most) least = 0;
    if (least === most) most = least + (Math.abs(least) || 1);
    const f = frame(360, 160, { range: [points[0][0], points[points.length - 1][0]] }, { range: [least, most] });
    for (const [step] of phases) f.root.append(svg('line', { class: 'phase', x1: f.sx(step), x2: f.sx(step), y1: f.top, y2: f.bottom }));
    const few = points.length < 40;
    if (few) for (const p of points) f.root.append(svg('circle', { class: 'point', r: 2.2, cx: f.sx(p[0]), cy: f.sy(p[1]) }));
    f.root.append(path(points, f, few ? 'mean' : 'raw'));
    if (!few) f.root.append(path(smooth(points), f, 'mean'));
    const [, group, plain] = /^(?:(parts|validation)\.)?(.*)$/.exec(name);
    const title = (group ? `${group === 'parts' ? 'part' : group}: ` : '') + (NAMES[plain] || plain.replaceAll('_', ' '));
    const last = points[points.length - 1];
    const said = (i) => { value.textContent = i < 0 ? `last ${short(last[1])}` : `step ${short(points[i][0])}: ${short(points[i][1])}`; };
    said(-1);
    f.root.setAttribute('aria-label', `${title} over the steps`);
    readable(f, points, said);
    find(section).querySelector('.curves').append(html('figure', {}, html('figcaption', {}, html('span', {}, title), value), f.root));
  }
}

function reliability() {
  const { bins, ece } = data.reliability;
  const host = find('reliability-chart');
  const text = html('p', { class: 'readout', 'aria-live': 'polite' }, `Expected calibration error ${ece.toFixed(3)}.`);
  const percent = (v) => `${Math.round(100 * v)} %`;
  const f = frame(680, 340, { range: [0, 1], format: percent, label: 'probability of the best label', left: 60 }, { range: [0, 1], format: percent, label: 'share right' });
  const most = Math.max(1, ...bins.map((bin) => bin[0]));
  const g = frame(680, 110, { range: [0, 1], ticks: [], left: 60 }, { range: [0, most], ticks: [0, most], format: String, label: 'clips' });
  bins.forEach(([clips, right, confidence], i) => {
    const [a, b] = [i / bins.length, (i + 1) / bins.length];
    const x = { x: f.sx(a) + 1, width: f.sx(b) - f.sx(a) - 2 };
    g.root.append(svg('rect', { class: 'bar count', ...x, y: g.sy(clips), height: g.sy(0) - g.sy(clips) }));
    g.root.append(svg('text', { x: f.sx((a + b) / 2), y: g.sy(clips) - 4, 'text-anchor': 'middle' }, String(clips)));
    if (!clips) return;
    const share = right / clips;
    const says = `${percent(a)} to ${percent(b)}: ${clips} clips, ${right} right (${(100 * share).toFixed(1)} %), mean probability ${(100 * confidence).toFixed(1)} %`;
    const bar = svg('rect', { class: 'bar hot', ...x, y: f.sy(share), height: f.sy(0) - f.sy(share), tabindex: 0, role: 'img', 'aria-label': says });
    for (const event of ['pointerenter', 'focus']) bar.addEventListener(event, () => { text.textContent = says; });
    f.root.append(bar, svg('line', { class: 'tick', x1: x.x, x2: x.x + x.width, y1: f.sy(confidence), y2: f.sy(confidence) }));
  });
  f.root.append(svg('line', { class: 'ideal', x1: f.sx(0), y1: f.sy(0), x2: f.sx(1), y2: f.sy(1) }));
  f.root.removeAttribute('role');
  host.append(text, f.root, g.root);
}

function usage() {
  const { used, zipf, tokens } = data.usage;
  const text = html('p', { class: 'readout', 'aria-live': 'polite' });
  const points = used.map(([, uses], i) => [i + 1, uses / tokens]);
  if (!points.length) return;
  const law = zipf.map((p, i) => [i + 1, p]);
  const ends = points.concat(law).map((p) => p[1]);
  const y = [Math.min(...ends) / 1.3, Math.max(...ends) * 1.3];
  const share = (v) => `${short(100 * v)} %`;
  const f = frame(680, 380, { range: [1, zipf.length], log: true, label: 'rank of the code', left: 58 }, { range: y, log: true, format: share, label: 'share of the tokens' });
  f.root.append(path(law, f, 'law'), path(points, f, 'mean'));
  for (const p of points) f.root.append(svg('circle', { class: 'point', r: 1.6, cx: f.sx(p[0]), cy: f.sy(p[1]) }));
  const label = law[Math.floor(law.length / 12)];
  f.root.append(svg('text', { x: f.sx(label[0]) + 6, y: f.sy(label[1]) - 8 }, 'Zipf\u2019s law'));
  f.root.setAttribute('aria-label', 'share of the tokens by rank of the code');
  const said = (i) => {
    const most = `Most used: code ${used[0][0]}, ${used[0][1]} of ${tokens} tokens.`;
    text.textContent = i < 0 ? most : `Rank ${i + 1}: code ${used[i][0]}, ${used[i][1]} uses, ${share(points[i][1])}; Zipf\u2019s law has ${share(zipf[i])}`;
  };
  said(-1);
  readable(f, points, said);
  find('usage-chart').append(text, f.root);
}

function codebook() {
  const { dots, labels, circles, counted } = data.codebook;
  const [size, text] = [420, find('disk-text')];
  const root = svg('svg', { viewBox: `${-size - 8} ${-size - 8} ${2 * size + 16} ${2 * size + 16}`, role: 'group', tabindex: 0, 'aria-label': 'codes on the disk' });
  root.append(svg('circle', { class: 'rim', r: size }));
  for (const [distance, radius] of circles) {
    root.append(svg('circle', { class: 'ring', r: radius * size }), svg('text', { x: 3, y: -radius * size - 3 }, String(distance)));
  }
  const hue = (label) => Math.round((label * 137.508) % 360);
  const most = Math.max(1, ...dots.map((dot) => dot.uses));
  // Small dots last, so that none is hidden behind a large one.
  const order = dots.map((_, code) => code).sort((a, b) => dots[b].uses - dots[a].uses);
  const nodes = order.map((code) => {
    const dot = dots[code];
    const radius = counted ? (dot.uses ? 2.5 + 13 * Math.sqrt(dot.uses / most) : 2.5) : 4;
    const kind = !counted ? 'dot plain' : dot.uses ? 'dot' : 'dot none';
    return svg('circle', { class: kind, r: radius.toFixed(1), style: dot.uses ? `--h:${hue(dot.top[0][0])}` : '' });
  });
  const move = () => {
    const key = document.querySelector('[name=disk]:checked').value;
    nodes.forEach((node, i) => {
      const [x, y] = dots[order[i]][key];
      node.setAttribute('cx', (x * size).toFixed(1));
      node.setAttribute('cy', (-y * size).toFixed(1));
    });
  };
  let at = -1;
  const show = (i) => {
    if (at >= 0) nodes[at].classList.remove('on');
    at = i;
    nodes[at].classList.add('on');
    const [code, dot] = [order[at], dots[order[at]]];
    const top = dot.top.map(([label, uses]) => `${labels[label]} ${uses}`).join(', ');
    const uses = counted ? `, ${dot.uses} uses${top ? `: ${top}` : ''}` : '';
    text.textContent = `Code ${code}, distance from the origin ${short(dot.distance)}${uses}`;
  };
  nodes.forEach((node, i) => node.addEventListener('pointerenter', () => show(i)));
  root.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) { event.preventDefault(); show((at + by + nodes.length) % nodes.length); }
  });
  document.querySelectorAll('[name=disk]').forEach((input) => input.addEventListener('change', move));
  const legend = find('disk-legend');
  const pick = (button, label) => {
    const on = button.getAttribute('aria-pressed') !== 'true';
    legend.querySelectorAll('button').forEach((other) => other.setAttribute('aria-pressed', 'false'));
    button.setAttribute('aria-pressed', String(on));
    nodes.forEach((node, i) => node.classList.toggle('dim', on && !dots[order[i]].top.some(([other]) => other === label)));
  };
  const shown = new Set(dots.flatMap((dot) => dot.top.slice(0, 1).map(([label]) => label)));
  [...shown].sort((a, b) => a - b).forEach((label) => {
    const button = html('button', { type: 'button', 'aria-pressed': 'false' }, html('i', { style: `--h:${hue(label)}` }), html('span', {}, labels[label]));
    button.addEventListener('click', () => pick(button, label));
    legend.append(button);
  });
  move();
  root.append(...nodes);
  find('disk-chart').append(root);
}
