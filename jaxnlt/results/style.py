"""The style sheet of report.html."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1f2933; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 80px; }
h1 { font-size: 30px; letter-spacing: -.02em; margin: 0 0 4px; }
h2 { font-size: 19px; letter-spacing: -.01em; margin: 44px 0 2px; }
p { margin: 0 0 12px; }
.caption { color: #52606d; font-size: 14.5px; max-width: 110ch; }
.tiles { display: grid; gap: 12px; margin: 22px 0 26px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile { border: 1px solid #e4e7eb; border-radius: 8px; padding: 12px 15px; }
.tile:first-child { background: #1f2933; color: #fff; border-color: #1f2933; }
.tile b { display: block; font-size: 25px; line-height: 1.25;
  white-space: nowrap; font-weight: 650; letter-spacing: -.02em; }
.tile span { font-size: 13px; opacity: .8; }
.list { columns: 2; column-gap: 44px; margin: 0; font-size: 14.5px; }
.list div { display: flex; justify-content: space-between; gap: 20px;
  break-inside: avoid;
  border-bottom: 1px solid #edf0f3; padding: 5px 0; }
.list dt { color: #52606d; }
.list dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f7fa; border-radius: 8px; padding: 11px 15px; margin: 0;
  font: 13px/1.5 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command { margin-top: 18px; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 32px; }
.small { max-width: 420px; margin: 0 auto; }
.narrow { max-width: 640px; margin: 0 auto; }
.wide { max-width: 820px; margin: 0 auto; }
.suspects { display: grid; grid-template-columns: 132px 1fr; gap: 10px 18px;
  align-items: start; margin-top: 14px; }
.suspects h3 { margin: 0; font-size: 15px; overflow-wrap: anywhere; }
.suspects h3 small { display: block; font-weight: 400; color: #616e7c; }
.row { display: flex; flex-wrap: wrap; gap: 12px; padding-bottom: 14px;
  border-bottom: 1px solid #edf0f3; }
.row figure { width: 94px; }
.row img { width: 94px; height: 94px; object-fit: contain;
  image-rendering: pixelated; background: #f5f7fa; border-radius: 4px; }
.row figcaption { font-size: 12.5px; line-height: 1.35; margin-top: 4px;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.row small { color: #616e7c; font-size: 12px; display: block; }
.row .wrong { color: #b45309; } .row .right { color: #15803d; }
table { border-collapse: collapse; font-size: 14.5px; margin: 10px auto; }
td, th { padding: 4px 16px 4px 0; border-bottom: 1px solid #edf0f3;
  text-align: left; } td:last-child { text-align: right; }
details { margin-top: 44px; } summary { cursor: pointer; margin-bottom: 8px; }
@media (max-width: 760px) { .list { columns: 1; }
  .pair, .suspects { grid-template-columns: 1fr; } }
"""
