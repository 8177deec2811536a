// Skeletons in motion: drawing, turning, playing, and the two sections that do so.

// Positions of a motion as one array [frames, persons, joints, coords], NaN where unseen, with its bounding box.
function decode(motion) {
  const raw = Uint8Array.from(atob(motion.joints), (c) => c.charCodeAt(0));
  const numbers = new DataView(raw.buffer);
  const [c, low, high] = [motion.coords, [Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  const at = new Float32Array(raw.length / 2);
  for (let i = 0; i < at.length; i++) {
    const n = numbers.getUint16(2 * i, true);
    const axis = i % c;
    at[i] = n === 65535 ? NaN : (motion.least[axis] + motion.step * n) * (motion.down && axis === 1 ? -1 : 1);
    if (n !== 65535) [low[axis], high[axis]] = [Math.min(low[axis], at[i]), Math.max(high[axis], at[i])];
  }
  if (c === 2) [low[2], high[2]] = [0, 0];
  return { ...motion, at, low, high };
}

// What all of `motions` fit into however they are turned about the vertical: centre, horizontal radius and half the height.
function room(motions) {
  const low = [0, 1, 2].map((axis) => Math.min(...motions.map((m) => m.low[axis])));
  const high = [0, 1, 2].map((axis) => Math.max(...motions.map((m) => m.high[axis])));
  const centre = low.map((v, axis) => (Number.isFinite(v) ? (v + high[axis]) / 2 : 0));
  const half = (...axes) => Math.hypot(...axes.map((axis) => (high[axis] - low[axis]) / 2));
  const size = (x) => (Number.isFinite(x) ? x : 0);
  const [wide, tall] = [size(half(0, 2)), size(half(1))];
  return wide + tall > 0 ? { centre, wide, tall, floor: low[1] } : { centre, wide: 1, tall: 1, floor: -1 };
}

let colours = {};
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['left', 'right', 'middle', 'line']) colours[name] = style.getPropertyValue(`--${name}`);
};

// One frame of a motion into the rectangle [x, y, w, h] of a canvas: orthographic, turned by view.yaw about the vertical, then tilted.
function draw(ctx, [left, top, w, h], skeleton, motion, space, frame, view) {
  const flat = motion.coords === 2;
  const [yaw, pitch] = flat ? [0, 0] : [view.yaw, view.pitch];
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const high = space.tall * cp + space.wide * Math.abs(sp);
  const scale = 0.45 * Math.min(space.wide ? w / space.wide : Infinity, high ? h / high : Infinity);
  const project = (x, y, z) => {
    const [a, b, c] = [x - space.centre[0], y - space.centre[1], z - space.centre[2]];
    const depth = c * cy - a * sy;
    return [left + w / 2 + scale * (a * cy + c * sy), top + h / 2 - scale * (b * cp - depth * sp)];
  };
  const line = (a, b) => { ctx.beginPath(); ctx.moveTo(...a); ctx.lineTo(...b); ctx.stroke(); };
  if (!flat) {
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1;
    const reach = Math.max(space.wide, space.tall * 0.4) * 0.7;
    for (let i = -2; i <= 2; i++) {
      const [x, z, d] = [space.centre[0], space.centre[2], (i * reach) / 2];
      line(project(x + d, space.floor, z - reach), project(x + d, space.floor, z + reach));
      line(project(x - reach, space.floor, z + d), project(x + reach, space.floor, z + d));
    }
  }
  const joints = skeleton.parents.length;
  const thick = Math.max(1.5, Math.min(w, h) / 90);
  ctx.lineCap = 'round';
  for (let person = 0; person < motion.persons; person++) {
    const base = ((frame * motion.persons) + person) * joints * motion.coords;
    const place = (joint) => {
      const i = base + joint * motion.coords;
      return Number.isNaN(motion.at[i]) ? null : project(motion.at[i], motion.at[i + 1], flat ? 0 : motion.at[i + 2]);
    };
    for (let joint = 0; joint < joints; joint++) {
      const end = place(joint);
      if (!end) continue;
      const colour = { l: colours.left, r: colours.right, m: colours.middle }[skeleton.sides[joint]];
      const parent = skeleton.parents[joint];
      const start = parent >= 0 ? place(parent) : null;
      [ctx.strokeStyle, ctx.fillStyle, ctx.lineWidth] = [colour, colour, thick];
      if (start) line(start, end);
      ctx.beginPath();
      ctx.arc(...end, thick * (skeleton.joints[joint] === 'head' ? 2.2 : 1.15), 0, 7);
      ctx.fill();
    }
  }
}

// A canvas that `paint(ctx, width, height)` fills; dragging and the arrow keys turn `view`, Space plays.
function stage(canvas, view, paint, repaintAll, toggle) {
  const repaint = () => {
    const [w, h, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
    if (!w || !h) return;
    if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
    if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
    const ctx = canvas.getContext('2d');
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    paint(ctx, w, h);
  };
  const turn = (dx, dy) => {
    view.yaw += dx;
    view.pitch = clamp(view.pitch + dy, -1.5, 1.5);
    repaintAll();
  };
  canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener('pointermove', (event) => { if (event.buttons) turn(event.movementX * 0.01, event.movementY * 0.01); });
  canvas.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (by) turn(...by);
    if (event.key === ' ') toggle();
    if (by || event.key === ' ') event.preventDefault();
  });
  new ResizeObserver(repaint).observe(canvas);
  return repaint;
}

// Play, pause and scrub: `paint(frame)` shows one. Plays round and round.
function transport(host, paint) {
  const button = html('button', { type: 'button' }, 'Play');
  const slider = html('input', { type: 'range', min: 0, max: 0, value: 0, 'aria-label': 'frame' });
  const counter = html('span');
  host.append(button, slider, counter);
  let [frames, rate, at, playing, before] = [1, 30, 0, false, 0];
  const show = (frame) => {
    at = frame;
    const whole = Math.floor(at);
    slider.value = whole;
    counter.textContent = `frame ${whole + 1} of ${frames}, ${rate} a second`;
    paint(whole);
  };
  const tick = (now) => {
    if (!playing) return;
    const next = at + (Math.min(now - before, 250) / 1000) * rate;
    before = now;
    show(next % frames);
    requestAnimationFrame(tick);
  };
  const set = (on) => {
    if (on && !playing) requestAnimationFrame((now) => { before = now; tick(now); });
    playing = on;
    button.textContent = on ? 'Pause' : 'Play';
  };
  button.addEventListener('click', () => set(!playing));
  slider.addEventListener('input', () => { set(false); show(Number(slider.value)); });
  return {
    load(count, fps, start) {
      [frames, rate] = [Math.max(1, count), Math.round(10 * (fps || 30)) / 10];
      slider.max = frames - 1;
      show(clamp(start, 0, frames - 1));
    },
    play: set,
    toggle: () => set(!playing),
    again: () => paint(Math.floor(at)),
  };
}

// Seen from the side that people in front of a sensor face, turned a little.
const firstView = () => ({ yaw: Math.PI - 0.45, pitch: 0.15 });
const repaints = [];

function tokenLine(host, tokens, on) {
  host.replaceChildren();
  tokens.forEach((token, i) => host.append(i === on ? html('b', {}, String(token)) : String(token), ' '));
}

function reconstructions() {
  const { skeleton, frames_a_token: each, pairs } = data.reconstructions;
  const [view, all, line] = [firstView(), [], []];
  let frame = 0;
  const repaintAll = () => all.forEach((repaint) => repaint());
  const bar = transport(find('pairs-bar'), (at) => {
    frame = at;
    repaintAll();
    line.forEach((mark) => mark());
  });
  for (const pair of pairs) {
    const both = [decode(pair.original), decode(pair.rebuilt)];
    const space = room(both);
    const canvas = html('canvas', { tabindex: 0, 'aria-label': `${pair.class}: original left, reconstruction right` });
    const tokens = html('p', { class: 'tokens' });
    all.push(stage(canvas, view, (ctx, w, h) => {
      both.forEach((motion, i) => draw(ctx, [(i * w) / 2, 0, w / 2, h], skeleton, motion, space, frame, view));
    }, repaintAll, () => bar.toggle()));
    line.push(() => tokenLine(tokens, pair.tokens, Math.floor(frame / each)));
    const caption = html('figcaption', {}, html('span', {}, pair.class), html('span', { title: pair.clip }, `off by ${pair.error.toFixed(3)}`));
    find('pairs').append(html('figure', {}, caption, canvas, tokens));
  }
  repaints.push(repaintAll);
  if (pairs.length) bar.load(pairs[0].original.frames, pairs[0].original.fps, Math.floor(pairs[0].original.frames / 2));
}

// Lists the clips of one confusion only; set where there is a list.
let filterMistakes = () => {};

function mistakes() {
  const { skeleton, clips } = data.mistakes;
  if (!clips.length) return;
  const view = firstView();
  const rows = [...find('mistakes-list').tBodies[0].rows];
  let [shown, space, frame] = [null, null, 0];
  const repaint = stage(find('player-canvas'), view, (ctx, w, h) => {
    if (shown) draw(ctx, [0, 0, w, h], skeleton, shown, space, frame, view);
  }, () => repaint(), () => bar.toggle());
  const bar = transport(find('player-bar'), (at) => { frame = at; repaint(); });
  const load = (index, play) => {
    const clip = clips[index];
    if (!clip.motion) return;
    rows.forEach((row, i) => row.classList.toggle('on', i === index));
    shown = decode(clip.motion);
    space = room([shown]);
    find('player-title').textContent = `${clip.clip}: ${clip.truth}, answered ${clip.answer}`;
    find('player-canvas').setAttribute('aria-label', `skeleton of ${clip.clip}`);
    find('player-tokens').textContent = `Action sentence: ${clip.tokens.join(' ')}`;
    bar.play(play);
    bar.load(shown.frames, shown.fps, play ? 0 : Math.floor(shown.frames / 2));
  };
  rows.forEach((row, index) => row.addEventListener('click', () => load(index, true)));
  repaints.push(repaint);
  load(0, false);
  const note = find('mistakes-filter');
  filterMistakes = (truth, answer) => {
    const fits = (clip) => truth === null || (clip.truth === truth && clip.answer === answer);
    rows.forEach((row, i) => { row.hidden = !fits(clips[i]); });
    note.hidden = truth === null;
    if (truth === null) return;
    const button = html('button', { type: 'button' }, 'Show all');
    button.addEventListener('click', () => filterMistakes(null, null));
    note.replaceChildren(`Only ${truth} taken for ${answer}. `, button);
    find('mistakes').scrollIntoView();
    load(clips.findIndex(fits), false);
  };
}
