// The network elsewhere than on the page: it gets its weights once, and then boards, one after the other.

// Messages: load { about, halves, channels }, and detect { id, rgba }.
/** @type {(send: (answer: any) => void) => {hear: (message: any) => void}} */
function toyServer(send) {
  let [about, network] = [null, null];
  const load = (given) => {
    about = given.about;
    network = toyNetwork(about, given.halves, given.channels);
    return { type: "ready" };
  };
  const detect = ({ id, rgba }) => {
    const begin = performance.now();
    const said = runToyNetwork(network, about, prepareImage(rgba, BOARD, BOARD, about.side));
    return { type: "answer", id, ...said, time: performance.now() - begin };
  };
  const hear = (message) => {
    try {
      send(message.type === "load" ? load(message) : detect(message));
    } catch (error) {
      send({ type: "failed", reason: `${error}` });
    }
  };
  return { hear };
}

function serveToys(scope) {
  const server = toyServer((answer) => scope.postMessage(answer));
  scope.onmessage = ({ data }) => server.hear(data);
}

// On the page. `ask` gives a board to the network, and `tell` gets what it says, with the `id` of the asking; of boards that
// come while it computes, only the last is asked.
function toyDetector(address, program, tell) {
  let [busy, next] = [false, null];
  const go = () => {
    busy = next !== null;
    if (busy) link.post({ type: "detect", ...next });
    next = null;
  };
  const hear = (answer) => {
    tell(answer);
    go();
  };
  const link = openElsewhere(address, program, hear, () => toyServer(hear));
  const load = (given) => {
    busy = true;
    link.post({ type: "load", ...given });
  };
  const ask = (id, rgba) => {
    next = { id, rgba: rgba.slice() };
    if (!busy) go();
  };
  return { load, ask, link };
}
