'use strict';
// Bodies in space: where their joints were seen last, and how they are drawn.

const firstView = () => ({ yaw: Math.PI - 0.45, pitch: 0.15 });

// Where a picture looks: it follows the bodies slowly, so that walking still looks like walking.
const newRoom = () => ({ centre: null, radius: 0, floor: Infinity });

// Takes a frame: joints that were not seen stay where they were.
function takePose(bodies, frame, coords) {
  let body = bodies.get(frame.body);
  if (!body) bodies.set(frame.body, (body = { at: [], seen: [], time: 0 }));
  body.time = frame.time_ns / 1e9;
  frame.joints.forEach((point, joint) => {
    body.seen[joint] = point !== null;
    // Images have y down, bodies up.
    if (point) body.at[joint] = coords === 2 ? [point[0], -point[1], 0] : point;
  });
}

// Fits the room to the bodies that are there.
function follow(room, bodies, smooth) {
  const points = [...bodies.values()].flatMap((body) => body.at.filter(Boolean));
  if (!points.length) return;
  const low = [0, 1, 2].map((axis) => Math.min(...points.map((p) => p[axis])));
  const high = [0, 1, 2].map((axis) => Math.max(...points.map((p) => p[axis])));
  const middle = low.map((v, axis) => (v + high[axis]) / 2);
  const radius = Math.hypot(...low.map((v, axis) => (high[axis] - v) / 2)) || 1;
  room.floor = Math.min(room.floor, low[1]);
  room.centre = room.centre ? room.centre.map((v, axis) => v + smooth * (middle[axis] - v)) : middle;
  // It grows at once and shrinks slowly: nothing leaves the picture.
  room.radius = Math.max(radius, room.radius + 0.1 * smooth * (radius - room.radius));
}

// Orthographic, turned about the vertical, then tilted.
function projector(room, view, w, h, flat) {
  const [yaw, pitch] = flat ? [0, 0] : [view.yaw, view.pitch];
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const scale = (0.43 * Math.min(w, h)) / room.radius;
  return ([x, y, z]) => {
    const [a, b, c] = [x - room.centre[0], y - room.centre[1], z - room.centre[2]];
    return [w / 2 + scale * (a * cy + c * sy), h / 2 - scale * (b * cp - (c * cy - a * sy) * sp)];
  };
}

// A floor of squares that stands still while bodies move over it.
function drawFloor(ctx, room, project, colour) {
  const step = 10 ** Math.round(Math.log10(room.radius)) * 0.5;
  const reach = Math.ceil((1.6 * room.radius) / step);
  const [x, z] = [Math.round(room.centre[0] / step), Math.round(room.centre[2] / step)];
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let i = -reach; i <= reach; i++) {
    ctx.moveTo(...project([(x + i) * step, room.floor, (z - reach) * step]));
    ctx.lineTo(...project([(x + i) * step, room.floor, (z + reach) * step]));
    ctx.moveTo(...project([(x - reach) * step, room.floor, (z + i) * step]));
    ctx.lineTo(...project([(x + reach) * step, room.floor, (z + i) * step]));
  }
  ctx.stroke();
}

// A body: bones, and joints hollow where they were not seen in the newest frame.
function drawBody(ctx, skeleton, body, project, colours, thick) {
  const at = body.at.map((point) => point && project(point));
  ctx.lineCap = 'round';
  at.forEach((end, joint) => {
    if (!end) return;
    const parent = skeleton.parents[joint];
    const start = parent === null || parent === undefined ? null : at[parent];
    ctx.strokeStyle = ctx.fillStyle = colours[skeleton.sides[joint]];
    ctx.lineWidth = thick;
    const solid = body.seen[joint] && (!start || body.seen[parent]);
    ctx.globalAlpha = solid ? 1 : 0.5;
    ctx.setLineDash(solid ? [] : [thick, 2 * thick]);
    if (start) {
      ctx.beginPath();
      ctx.moveTo(...start);
      ctx.lineTo(...end);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
  });
  // Joints over bones: a hollow one has the ground's colour inside.
  at.forEach((end, joint) => {
    if (!end) return;
    ctx.strokeStyle = colours[skeleton.sides[joint]];
    ctx.fillStyle = body.seen[joint] ? ctx.strokeStyle : colours.card;
    ctx.lineWidth = thick / 2;
    ctx.beginPath();
    ctx.arc(...end, thick * (/head|nose/i.test(skeleton.joints[joint]) ? 2 : 1.2), 0, 7);
    ctx.fill();
    ctx.stroke();
  });
}

// A canvas of the size in which it is shown; the context draws in CSS pixels.
function prepare(canvas) {
  const [w, h, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
  if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
  if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
  const ctx = canvas.getContext('2d');
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, w, h);
  return [ctx, w, h];
}
