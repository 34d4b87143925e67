// Wakes the explorable figures of a page: each is one module, fetched when the reader comes near it.
// The address of the page keeps what the reader turned: `#event_loop?seed=8&rate=400…` opens that run again.
const version = document.querySelector("script[data-explorables]")?.dataset.explorables ?? "";

/** What an explorable asks of its widget model, kept in the page's address instead of in a kernel. */
function addressModel(name, state, given) {
  const listeners = new Set();
  const read = () => {
    const [, query] = location.hash.split(`#${name}?`);
    return query === undefined ? state : { ...state, ...Object.fromEntries(new URLSearchParams(query)) };
  };
  let [current, timer] = [read(), 0];
  addEventListener("hashchange", () => {
    if (!location.hash.startsWith(`#${name}?`)) return;
    current = read();
    for (const listener of listeners) listener();
  });
  return {
    get: (key) => (key === "state" ? current : given),
    set: (_, value) => (current = value),
    save_changes() {
      clearTimeout(timer); // browsers refuse an address that changes with every key
      timer = setTimeout(() => history.replaceState(history.state, "", `#${name}?${new URLSearchParams(current)}`), 300);
    },
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  };
}

async function wake(place) {
  const { module, state, given = "{}" } = place.dataset;
  const address = new URL(`explorables/${module}.js`, import.meta.url);
  address.search = version;
  const stage = document.createElement("div");
  try {
    const figure = await import(address);
    place.append(stage);
    figure.default.render({ model: addressModel(place.id, JSON.parse(state), JSON.parse(given)), el: stage });
    place.replaceChildren(stage);
  } catch (error) {
    stage.remove(); // the words that stand there stay
    console.error(`${module} could not be shown:`, error);
  }
}

const places = [...document.querySelectorAll(".sl-explorable[data-module]")];
const seen = {};
for (const place of places) {
  const { module } = place.dataset;
  seen[module] = (seen[module] ?? 0) + 1;
  place.id ||= seen[module] === 1 ? module : `${module}-${seen[module]}`;
}

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      wake(target);
    }
  },
  { rootMargin: "800px" },
);
const linked = places.findIndex((place) => location.hash.startsWith(`#${place.id}?`));
for (const place of places.slice(linked + 1)) near.observe(place);
if (linked >= 0) {
  // all figures down to the linked one take their room first, or it would slide away from under the reader
  await Promise.all(places.slice(0, linked + 1).map(wake));
  places[linked].scrollIntoView();
}
