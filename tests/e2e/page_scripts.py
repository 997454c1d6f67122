"""JavaScript that asks a browser about a page."""

# Texts that are wider than what they stand in.
CUT = """() => [...document.querySelectorAll(".pl *, label span, button")]
  .filter(one => one.checkVisibility() && one.innerText && !one.matches(".bar, .bar *")
    && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
  .map(one => one.innerText)"""
# WCAG's contrast of every text of the answers with what is behind it.
CONTRASTS = """() => {
  const parse = text => { const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a ?? 1]; };
  const over = (top, below, share) => below.slice(0, 3).map((value, place) => value + share * (top[place] - value));
  const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const text = ".pl p, .pl th, .pl small, .pl td, .pl b, .pl li, button, .or, .min_value";
  return [...document.querySelectorAll(text)]
    .filter(one => one.checkVisibility() && one.innerText.trim()).map(one => {
      const above = []; for (let here = one; here; here = here.parentElement) above.unshift(here);
      let behind = [255, 255, 255], opacity = 1;
      for (const here of above) {
        const style = getComputedStyle(here), colour = parse(style.backgroundColor);
        behind = over(colour, behind, colour[3]);
        opacity *= Number(style.opacity);
      }
      const colour = parse(getComputedStyle(one).color), front = over(colour, behind, opacity * colour[3]);
      const [low, high] = [light(front), light(behind)].sort((one, other) => one - other);
      return [(high + 0.05) / (low + 0.05), one.innerText];
    });
}"""
