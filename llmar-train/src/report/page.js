// The matrix, and the start of every section that has data.

function matrix() {
  const table = find('matrix');
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  let marked = [];
  const names = (cell) => [cell.parentNode.cells[0].textContent, heads[cell.cellIndex].textContent];
  const say = (cell) => {
    marked.forEach((head) => head.classList.remove('on'));
    marked = [cell.parentNode.cells[0], heads[cell.cellIndex]];
    marked.forEach((head) => head.classList.add('on'));
    const [truth, answer] = names(cell);
    const [n, total] = [Number(cell.textContent || 0), Number(cell.parentNode.dataset.total)];
    const share = total ? ` (${((100 * n) / total).toFixed(1)} %)` : '';
    const what = truth === answer ? `${truth}: ${n} of ${total} clips right` : `${truth} taken for ${answer}: ${n} of ${total} clips`;
    find('matrix-text').textContent = what + share;
  };
  const list = (cell) => {
    const [truth, answer] = names(cell);
    if (truth !== answer && cell.textContent) filterMistakes(truth, answer);
  };
  const cellOf = (event) => event.target.closest('tbody td');
  rows[0].cells[1].tabIndex = 0;
  table.addEventListener('pointerover', (event) => { if (cellOf(event)) say(cellOf(event)); });
  table.addEventListener('focusin', (event) => { if (cellOf(event)) say(cellOf(event)); });
  table.addEventListener('click', (event) => { if (cellOf(event)) list(cellOf(event)); });
  table.addEventListener('keydown', (event) => {
    const cell = cellOf(event);
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (cell && event.key === 'Enter') list(cell);
    if (!cell || !by) return;
    event.preventDefault();
    const row = rows[clamp(rows.indexOf(cell.parentNode) + by[0], 0, rows.length - 1)];
    const next = row.cells[clamp(cell.cellIndex + by[1], 1, heads.length - 1)];
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

readColours();
const sections = { stage1: () => curves('stage1'), stage2: () => curves('stage2'), confusions: matrix, reliability, usage, codebook, reconstructions, mistakes };
for (const [id, start] of Object.entries(sections)) if (id in data) start();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  readColours();
  repaints.forEach((repaint) => repaint());
});
