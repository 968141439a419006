// Shows the tiles that have the chosen finding and whose name holds the typed text.
const tiles = [...document.querySelectorAll(".tile")];
const finding = document.querySelector("#finding");
const wanted = document.querySelector("#wanted");
const shown = document.querySelector("#shown");
const filter = () => {
  let count = 0;
  for (const tile of tiles) {
    const codes = tile.dataset.findings.split(" ");
    const match =
      (finding.value === "" || codes.includes(finding.value)) &&
      tile.dataset.name.includes(wanted.value.trim());
    tile.hidden = !match;
    count += match;
  }
  shown.textContent = String(count);
};
finding.addEventListener("change", filter);
wanted.addEventListener("input", filter);
