// The live tail keeps its newest rows: a page that stays open for days must not grow without end.
const ROWS_MAX = 200;

document.addEventListener("htmx:sseMessage", () => {
  const rows = document.getElementById("tail");
  while (rows && rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
});
