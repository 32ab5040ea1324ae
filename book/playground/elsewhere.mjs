// What computes, in a Web Worker if one may be started: from the script's own address, from its text (a page opened as a
// file), or on the page itself.

/** @typedef {{post: (message: any) => any, where: string}} Elsewhere */

// `program` is the text of the function that serves where there is no document; `onPage` makes what serves here, by `hear`.
// `tell` gets each answer.
/** @type {(address: string, program: string, tell: (answer: any) => void, onPage: () => {hear: (message: any) => void}) => Elsewhere} */
function openElsewhere(address, program, tell, onPage) {
  const here = () => {
    const server = onPage();
    return (message) => setTimeout(() => server.hear(message));
  };
  const text = () => URL.createObjectURL(new Blob([`(${program})(null);`], { type: "text/javascript" }));
  const link = { post: null, where: "worker" };
  const stay = (sent) => {
    Object.assign(link, { post: here(), where: "page" });
    for (const message of sent) link.post(message);
  };
  try {
    const worker = new Worker(address.startsWith("http") ? address : text());
    const sent = [];
    let alive = false;
    worker.onmessage = ({ data }) => {
      alive = true;
      sent.length = 0;
      tell(data);
    };
    worker.onerror = () => alive || stay(sent);
    link.post = (message) => {
      if (!alive) sent.push(message);
      worker.postMessage(message);
    };
  } catch {
    stay([]);
  }
  return link;
}
