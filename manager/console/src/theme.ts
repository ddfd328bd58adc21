// Sizes and colours of the component library: dense and calm. What is our own stands in style.css.
import { createTheme, Drawer, Input, Menu, mergeThemeOverrides, Modal, Notification, Popover, Tooltip } from "@mantine/core";

export const theme = createTheme({
  primaryColor: "steel",
  primaryShade: { light: 7, dark: 6 },
  colors: {
    steel: [
      "#eef5fb", "#dbe8f4", "#b4d0e9", "#8ab6de", "#68a0d5",
      "#4f90cd", "#3573b1", "#1c5d99", "#174e82", "#0f3a63",
    ],
    // As in style.css. Text in the sixth is read on its own tint.
    red: [
      "#fdecea", "#fbd5d1", "#f5b0a9", "#ff8a80", "#e9695e",
      "#d64a3f", "#b3261e", "#9d1b14", "#80150f", "#5f0f0b",
    ],
    dark: [
      "#dfe4ea", "#b6bec8", "#98a3b1", "#6c7785", "#3a434e",
      "#2c333c", "#242a32", "#1b2027", "#14181d", "#0f1216",
    ],
  },
  fontFamily: 'system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans JP", "DejaVu Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SFMono-Regular", "Cascadia Mono", "DejaVu Sans Mono", monospace',
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.125rem" },
  defaultRadius: "sm",
  cursorType: "pointer",
  respectReducedMotion: true,
  components: {
    // The scroll bar stays: the page does not jump when a dialog opens.
    Modal: Modal.extend({ defaultProps: { lockScroll: false, centered: true, transitionProps: { duration: 80 } } }),
    // What is wanted is said when it is missing.
    InputWrapper: Input.Wrapper.extend({ defaultProps: { withAsterisk: false } }),
    Menu: Menu.extend({ defaultProps: { transitionProps: { duration: 60 }, shadow: "md" } }),
    Popover: Popover.extend({ defaultProps: { transitionProps: { duration: 60 }, shadow: "md" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, withArrow: true } }),
  },
});

/** The same, with what closes a thing named in the reader's language. */
export function themed(close: string) {
  const closeButtonProps = { "aria-label": close };
  return mergeThemeOverrides(theme, {
    components: {
      Modal: Modal.extend({ defaultProps: { closeButtonProps } }),
      Drawer: Drawer.extend({ defaultProps: { closeButtonProps } }),
      Notification: Notification.extend({ defaultProps: { closeButtonProps } }),
    },
  });
}
