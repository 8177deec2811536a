// What the stream tells, as it comes: skeletons, labels, the course of actions; and the controls.

const find = (id) => document.getElementById(id);
const percent = (p) => `${Math.round(100 * p)}%`;
// Of the time line, and of what is kept for it.
const SPAN = 20;

let skeleton = null;
let state = { phase: 'waiting', paused: false, speed: 1, start_s: null };
let bodies = new Map();
// Of each body: decisions, actions that go on, actions that have ended.
let courses = new Map();
let room = newRoom();
const view = firstView();
let [newest, shown, dirty, held] = [0, null, true, false];
const rows = [];
let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['left', 'right', 'middle', 'line', 'card', 'fg', 'muted', 'faint', 'unknown', 'lightness']) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  dirty = true;
}

// The same colour for a label wherever it stands.
function colourOf(label) {
  let hash = 7;
  for (const c of label) hash = (hash * 31 + c.codePointAt(0)) % 360;
  return `hsl(${(hash * 137) % 360} 55% ${colours.lightness})`;
}

const clockText = (s) => `${(s - (state.start_s ?? 0)).toFixed(1)} s`;

function course(body) {
  if (!courses.has(body)) {
    courses.set(body, { decisions: [], current: null, done: [] });
    if (shown === null) shown = body;
    const option = new Option(String(body), String(body));
    find('body').add(option);
    find('body-choice').hidden = courses.size < 2;
    find('body').value = String(shown);
  }
  return courses.get(body);
}

function clear() {
  [bodies, courses, room, newest, shown] = [new Map(), new Map(), newRoom(), state.start_s ?? 0, null];
  find('body').replaceChildren();
  find('body-choice').hidden = true;
  find('log').replaceChildren();
  showDecision(null);
}

// The bars of the shown body's newest decision, and what they come to.
function showDecision(decision) {
  const current = shown === null ? null : courses.get(shown)?.current;
  const kind = !decision ? 'none' : decision.unknown ? 'unknown' : decision.idle ? 'idle' : current ? 'action' : 'undecided';
  const now = find('now');
  now.dataset.state = kind === 'undecided' ? 'none' : kind;
  const words = { none: 'no decision yet', unknown: 'unknown', idle: `idle: ${decision?.label}`, undecided: 'no action' };
  now.textContent = words[kind] ?? current.label;
  now.style.color = kind === 'action' ? colourOf(current.label) : '';
  let detail = decision && current ? `${current.label} since ${clockText(current.start_s)}` : '';
  if (kind === 'unknown') detail = `best guess ${decision.label} ${percent(decision.probability)}${detail ? `; ${detail}` : ''}`;
  find('detail').textContent = detail;
  find('bars').dataset.state = kind;
  const top = decision?.top ?? [];
  while (rows.length < top.length) addRow();
  rows.forEach((row, i) => {
    const scored = top[i];
    row.node.hidden = !scored;
    if (!scored) return;
    row.name.textContent = row.name.title = scored.label;
    row.value.textContent = percent(scored.probability);
    row.fill.style.width = `${100 * scored.probability}%`;
    row.fill.style.background = colourOf(scored.label);
    row.track.setAttribute('aria-label', scored.label);
    row.track.setAttribute('aria-valuenow', Math.round(100 * scored.probability));
  });
  if (!decision) return;
  find('latency').textContent = `${decision.latency_ms.toFixed(1)} ms`;
  const unseen = decision.missing_joints.length ? `, never seen: ${decision.missing_joints.join(', ')}` : '';
  find('missing').textContent = percent(decision.missing) + unseen;
}

function addRow() {
  const make = (name, parent, className) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    parent.append(node);
    return node;
  };
  const node = make('div', find('bars'), 'row');
  const name = make('span', node);
  const track = make('div', node, 'track');
  track.setAttribute('role', 'meter');
  track.setAttribute('aria-valuemin', 0);
  track.setAttribute('aria-valuemax', 100);
  const fill = make('div', track, 'fill');
  // Where an action begins and where it ends.
  for (const at of [skeleton.begin_at, skeleton.end_below]) make('div', track, 'mark').style.left = `${100 * at}%`;
  rows.push({ node, name, track, fill, value: make('span', node) });
}

function note(text, label) {
  const item = document.createElement('li');
  item.textContent = text;
  if (label) item.style.color = colourOf(label);
  find('log').append(item);
  while (find('log').childElementCount > 200) find('log').firstElementChild.remove();
  find('log').scrollTop = find('log').scrollHeight;
}

const handlers = {
  hello(message) {
    // Also after a lost connection: what happens is told from here on.
    skeleton = message;
    clear();
    find('title').textContent = `${message.model}: ${message.source}`;
    document.title = `${message.source} – llmar view`;
    for (const id of ['restart', 'repeat', 'speed']) find(id).closest(id === 'restart' ? 'button' : 'label').hidden = message.live;
  },
  state(message) {
    const fresh = message.start_s !== state.start_s && message.phase === 'playing';
    state = message;
    if (fresh) clear();
    find('speed').value = String(message.speed);
    if (message.phase === 'ended' && find('repeat').checked && !skeleton.live) control('restart');
    showPhase();
  },
  frame(message) {
    takePose(bodies, message, skeleton.coords);
    course(message.body);
    newest = Math.max(newest, message.time_ns / 1e9);
    dirty = true;
  },
  decision(message) {
    const { decisions } = course(message.body);
    decisions.push(message);
    while (decisions.length && decisions[0].time_s < message.time_s - SPAN - 5) decisions.shift();
    if (message.body === shown && !held) showDecision(message);
  },
  begin(message) {
    course(message.body).current = message;
    note(`${clockText(message.start_s)}: body ${message.body} begins ${message.label} (${percent(message.probability)})`, message.label);
    refresh(message.body);
  },
  end(message) {
    const of = course(message.body);
    of.current = null;
    of.done.push(message);
    if (of.done.length > 200) of.done.shift();
    note(`${clockText(message.end_s)}: body ${message.body} ends ${message.label} (${percent(message.probability)})`, message.label);
    refresh(message.body);
  },
  forgotten(message) {
    bodies.delete(message.body);
    note(`${clockText(message.time_s)}: body ${message.body} is gone`);
  },
  statistics(message) {
    find('percentiles').textContent = `${message.p50_ms.toFixed(1)} ms, ${message.p99_ms.toFixed(1)} ms`;
    find('decisions').textContent = `${message.decisions}, ${message.skipped}`;
    find('frames').textContent = `${message.frames}, ${message.refused}`;
  },
  bye() {
    source.close();
    connected('the program has ended', true);
  },
};

function refresh(body) {
  dirty = true;
  if (body === shown && !held) showDecision(courses.get(body).decisions.at(-1) ?? null);
}

const isPaused = () => (skeleton?.live ? held : state.paused);

function connected(text, warn) {
  find('connection').textContent = text;
  find('connection').classList.toggle('warn', Boolean(warn));
}

function showPhase() {
  const paused = isPaused();
  find('pause').textContent = paused ? 'Play' : 'Pause';
  find('pause').disabled = !skeleton?.live && state.phase === 'ended';
  connected(paused ? 'paused' : state.phase);
}

async function control(command) {
  try {
    await fetch('/control', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(command) });
  } catch {
    connected('connection lost', true);
  }
}

function pause() {
  if (!skeleton?.live) {
    control({ pause: !state.paused });
    return;
  }
  // A sensor goes on; the picture stands.
  held = !held;
  showPhase();
  if (shown !== null) refresh(shown);
}

function turn(dx, dy) {
  view.yaw += dx;
  view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + dy));
  dirty = true;
}

function drawScene() {
  const [ctx, w, h] = prepare(find('canvas'));
  if (!skeleton) return;
  follow(room, bodies, 0.08);
  if (!room.centre || !w || !h) return;
  const flat = skeleton.coords === 2;
  const project = projector(room, view, w, h, flat);
  if (!flat) drawFloor(ctx, room, project, colours.line);
  const thick = Math.max(2, Math.min(w, h) / 110);
  for (const [id, body] of bodies) {
    ctx.globalAlpha = 1;
    drawBody(ctx, skeleton, body, project, colours, thick);
    const current = courses.get(id)?.current;
    const head = body.at.filter(Boolean).reduce((best, p) => (!best || p[1] > best[1] ? p : best), null);
    if (!head) continue;
    const [x, y] = project(head);
    ctx.font = '600 14px system-ui, sans-serif';
    ctx.textAlign = 'center';
    ctx.fillStyle = current ? colourOf(current.label) : colours.muted;
    const name = courses.size > 1 ? `${id}: ` : '';
    ctx.fillText(current ? name + current.label : name && String(id), x, Math.max(16, y - 4 * thick));
  }
}

function drawLine() {
  const [ctx, w, h] = prepare(find('line'));
  const base = state.start_s ?? 0;
  const end = Math.max(newest, base + SPAN);
  const x = (s) => w * (1 - (end - s) / SPAN);
  const [top, bottom] = [34, h - 18];
  ctx.font = '12px system-ui, sans-serif';
  ctx.textAlign = 'center';
  for (let s = Math.ceil(end - SPAN - base); s <= end - base; s++) {
    ctx.fillStyle = colours.faint;
    ctx.fillRect(x(s + base), 0, 1, bottom);
    ctx.fillStyle = colours.muted;
    if (s % 2 === 0 && x(s + base) > 12 && x(s + base) < w - 12) ctx.fillText(`${s} s`, x(s + base), h - 4);
  }
  const of = shown === null ? null : courses.get(shown);
  if (!of) return;
  let before = -Infinity;
  for (const decision of of.decisions) {
    const left = x(decision.time_s - before < 0.6 ? before : decision.time_s - 0.15);
    const height = (bottom - top) * decision.probability;
    ctx.fillStyle = decision.unknown ? colours.unknown : colourOf(decision.label);
    ctx.globalAlpha = decision.idle ? 0.35 : 0.8;
    ctx.fillRect(left, bottom - height, Math.max(1, x(decision.time_s) - left - 1), height);
    ctx.globalAlpha = 1;
    if (decision.idle) {
      ctx.fillStyle = colours.card;
      for (let y = bottom - 3; y > bottom - height; y -= 6) ctx.fillRect(left, y, x(decision.time_s) - left, 2);
    }
    before = decision.time_s;
  }
  const mark = (action, until, open) => {
    const [a, b] = [x(action.start_s), x(until)];
    if (b < 0) return;
    ctx.fillStyle = ctx.strokeStyle = colourOf(action.label);
    ctx.fillRect(a, 6, Math.max(2, b - a), 20);
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    for (const at of open ? [a] : [a, b]) [ctx.moveTo(at, 6), ctx.lineTo(at, bottom)];
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.save();
    ctx.beginPath();
    ctx.rect(Math.max(0, a), 6, b - Math.max(0, a), 20);
    ctx.clip();
    ctx.fillStyle = colours.card;
    ctx.textAlign = 'left';
    ctx.fillText(action.label, Math.max(0, a) + 5, 20);
    ctx.restore();
  };
  for (const action of of.done) mark(action, action.end_s, false);
  if (of.current) mark(of.current, newest, true);
  ctx.fillStyle = colours.fg;
  ctx.fillRect(x(newest) - 1, 0, 1, bottom);
}

function tick() {
  if (dirty && !held) {
    dirty = false;
    drawScene();
    drawLine();
    find('time').textContent = clockText(newest) + (skeleton?.length_s ? ` of ${skeleton.length_s.toFixed(1)} s` : '');
  }
  requestAnimationFrame(tick);
}

find('pause').addEventListener('click', pause);
find('restart').addEventListener('click', () => control('restart'));
find('speed').addEventListener('change', () => control({ speed: Number(find('speed').value) }));
find('body').addEventListener('change', () => { shown = Number(find('body').value); refresh(shown); });
const canvas = find('canvas');
canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener('pointermove', (event) => { if (event.buttons) turn(event.movementX * 0.01, event.movementY * 0.01); });
canvas.addEventListener('keydown', (event) => {
  const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
  if (by) turn(...by);
  else if (event.key === 'Home') [Object.assign(view, firstView()), (dirty = true)];
  else return;
  event.preventDefault();
});
document.addEventListener('keydown', (event) => {
  // Controls have keys of their own.
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('button, select, input')) return;
  if (event.key === ' ') pause();
  else if (event.key.toLowerCase() === 'r' && !skeleton?.live) control('restart');
  else return;
  event.preventDefault();
});
new ResizeObserver(() => { dirty = true; }).observe(canvas);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', readColours);
readColours();

const source = new EventSource('/events');
source.onopen = () => showPhase();
source.onerror = () => connected('connection lost; trying again', true);
source.onmessage = (event) => {
  const message = JSON.parse(event.data);
  handlers[message.kind]?.(message);
};
requestAnimationFrame(tick);
