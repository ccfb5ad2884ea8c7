// Keeps the board as it is in the database: the server tells over a WebSocket which cards a change left
// behind. Text only ever becomes text (textContent), never HTML.
"use strict";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
const SILENCE = 45_000; // the server sends a beat every 15 s; three missed ones are a dead connection
const NO_SUCH_PROJECT = 4404;

const board = document.getElementById("board");
const connection = document.getElementById("connection");
const news = document.getElementById("news");
const blank = document.getElementById("card").content.firstElementChild;
const most = Number(board.dataset.most);

// ---- the board

const column = (status) => board.querySelector(`[data-status="${CSS.escape(status)}"]`);
const cardOf = (id) => board.querySelector(`[data-task="${Number(id)}"]`);

function filled(card) {
  const element = cardOf(card.id) ?? blank.cloneNode(true);
  element.dataset.task = card.id;
  element.dataset.priority = card.priority;
  const title = element.querySelector(".title");
  title.textContent = card.title;
  title.setAttribute("href", `/tasks/${Number(card.id)}`);
  element.querySelector(".number").textContent = `#${card.id}`;
  element.querySelector(".priority").textContent = card.priority;
  element.querySelector(".assignee").textContent = card.assignee ?? "";
  const due = element.querySelector(".due");
  due.textContent = card.due ? `due ${card.due}` : "";
  due.toggleAttribute("data-overdue", card.overdue);
  return element;
}

function setCount(status, count) {
  const section = column(status);
  section.querySelector("[data-count]").textContent = count;
  const hidden = count - section.querySelector("[data-cards]").childElementCount;
  section.querySelector("[data-more]").textContent = hidden > 0 ? `and ${hidden} more` : "";
}

function showBoard(message) {
  for (const { status, count, cards } of message.columns) {
    column(status).querySelector("[data-cards]").replaceChildren(...cards.map(filled));
    setCount(status, count);
  }
}

function showChanges(message) {
  for (const card of message.cards) {
    const element = filled(card);
    const list = column(card.status).querySelector("[data-cards]");
    list.prepend(element);
    while (list.childElementCount > most) list.lastElementChild.remove();
    element.classList.remove("changed");
    void element.offsetWidth; // lets the animation begin anew
    element.classList.add("changed");
  }
  for (const [status, count] of Object.entries(message.counts)) setCount(status, count);
  const last = message.cards.at(-1);
  if (last) news.textContent = `#${last.id} ${last.title}: ${last.status.replace("_", " ")}`;
}

/** Runs `change`, after which the card that had the keyboard focus has it again, wherever it went. */
function keepingFocus(change) {
  const id = document.activeElement?.closest?.("[data-task]")?.dataset.task;
  change();
  if (id !== undefined) cardOf(id)?.querySelector(".title").focus();
}

// ---- the connection

let socket = null;
let attempts = 0;
let nextAttempt = null;
let watchdog = null;

function say(state, text) {
  connection.dataset.state = state;
  connection.textContent = text;
}

function connect() {
  clearTimeout(nextAttempt);
  nextAttempt = null;
  const address = new URL(board.dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = (socket = new WebSocket(address));
  expectNews();
  mine.onmessage = (event) => {
    if (mine !== socket) return;
    expectNews();
    const message = JSON.parse(event.data);
    if (message.kind === "board") {
      attempts = 0;
      keepingFocus(() => showBoard(message));
      say("live", "Live");
    } else if (message.kind === "changes") {
      keepingFocus(() => showChanges(message));
    }
  };
  mine.onclose = (event) => {
    if (mine === socket) lost(event.code);
  };
}

function expectNews() {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => {
    // close() would wait for an answer that does not come
    const silent = socket;
    lost(null);
    silent.close();
  }, SILENCE);
}

function lost(code) {
  socket = null;
  clearTimeout(watchdog);
  if (code === NO_SUCH_PROJECT) {
    say("lost", "This project no longer exists.");
    return;
  }
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts) * (0.75 + Math.random() / 2);
  attempts += 1;
  say("lost", "Connection lost. What you see may be out of date. Trying again…");
  nextAttempt = setTimeout(connect, wait);
}

addEventListener("online", () => {
  if (nextAttempt !== null) connect();
});
addEventListener("pageshow", (event) => {
  if (event.persisted && socket === null) connect();
});

// ---- the keyboard: arrows walk over the cards, Tab as everywhere

board.addEventListener("keydown", (event) => {
  const here = event.target.closest("[data-task]");
  if (!here || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const list = here.parentElement;
  let target = null;
  if (event.key === "ArrowDown") target = here.nextElementSibling;
  else if (event.key === "ArrowUp") target = here.previousElementSibling;
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const lists = [...board.querySelectorAll("[data-cards]")].filter((one) => one.childElementCount > 0);
    const beside = lists[lists.indexOf(list) + (event.key === "ArrowRight" ? 1 : -1)];
    const row = [...list.children].indexOf(here);
    target = beside?.children[Math.min(row, beside.childElementCount - 1)];
  } else return;
  event.preventDefault();
  target?.querySelector(".title").focus();
});

connect();
