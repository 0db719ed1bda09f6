// Tables that sort; one tooltip for every number and mark, under the pointer or the keyboard's focus.
// Without this script the same texts show as the browser's own titles.
const number = /^\s*[+-]?[\d.]/;
for (const button of document.querySelectorAll('th button')) button.onclick = () => {
  const th = button.closest('th'), bodies = th.closest('table').tBodies, i = th.cellIndex;
  const up = th.getAttribute('aria-sort') !== 'ascending';
  const key = row => { const text = row.cells[i].textContent; return number.test(text) ? parseFloat(text) : text };
  for (const body of bodies) {  // each group of rows by itself, below its title
    const rows = [...body.rows].filter(row => row.className !== 'part').map(row => [key(row), row]).sort(([x], [y]) => {
      if (x === '' || y === '') return (x === '') - (y === '');  // what is empty stays at the end
      const order = typeof x !== typeof y ? (typeof x === 'number' ? -1 : 1) : x < y ? -1 : x > y ? 1 : 0;
      return up ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  }
  for (const other of th.parentNode.cells) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
};

const tip = document.createElement('div');
tip.role = 'tooltip'; tip.id = 'tooltip'; tip.hidden = true;
document.body.append(tip);
for (const element of document.querySelectorAll('[title]')) {
  element.dataset.tip = element.title;
  element.removeAttribute('title');
}
for (const title of document.querySelectorAll('svg .mark > title')) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
const hide = () => { tip.hidden = true; document.querySelector('[aria-describedby=tooltip]')?.removeAttribute('aria-describedby') };
const show = element => {
  hide();
  if (!element) return;
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  if (!element.classList.contains('mark')) element.setAttribute('aria-describedby', 'tooltip');
  const box = element.getBoundingClientRect(), width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(box.left, width - tip.offsetWidth - 8));
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(below ? box.bottom + 6 : Math.max(4, box.top - tip.offsetHeight - 6)) + scrollY}px`;
};
const told = event => event.target.closest?.('[data-tip]');
document.addEventListener('pointerover', event => show(told(event)));
document.addEventListener('focusin', event => show(told(event)));
document.addEventListener('focusout', hide);

// One tab stop for each table and figure, arrow keys within: a page of numbers is not a page of tab stops.
for (const area of document.querySelectorAll('[data-rove]')) {
  const all = () => [...area.querySelectorAll('[data-tip]')];
  const first = all()[0];
  if (first) first.tabIndex = 0;
  area.addEventListener('keydown', event => {
    if (event.key === 'Escape') return hide();
    const here = all(), at = here.indexOf(document.activeElement), row = document.activeElement.closest('tr');
    if (at < 0) return;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity}[event.key];
    if (!step) return;
    event.preventDefault();
    let next = here[Math.max(0, Math.min(here.length - 1, at + step))];
    if (row && event.key in {ArrowDown: 1, ArrowUp: 1}) {
      const rows = [...row.closest('table').rows], column = document.activeElement.cellIndex;
      let other = rows.indexOf(row);
      do other += step; while (rows[other] && !rows[other].cells[column]?.dataset.tip);
      next = rows[other]?.cells[column];
    }
    if (!next) return;
    here[at].tabIndex = -1; next.tabIndex = 0;
    next.focus();
  });
}
