// Elements without markup in strings: the page's policy lets none in.

/** An element with properties, and children that are elements or texts. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("--")) made.style.setProperty(key, value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A part of a picture. */
export function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Buttons of which one is pressed. */
export function choices(place, entries, chosen, choose) {
  place.replaceChildren(
    ...entries.map(([value, shown, lang]) =>
      el(
        "button",
        { type: "button", lang, "aria-pressed": String(value === chosen), onclick: () => choose(value) },
        shown,
      ),
    ),
  );
}
